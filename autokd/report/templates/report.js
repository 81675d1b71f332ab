// Inflates the embedded plotly.js and draws the figures in the page's own colors, light or dark.
(() => {
  "use strict";
  const say = (words) => {
    const notice = document.getElementById("figures-notice");
    notice.textContent = words;
    notice.hidden = false;
    for (const place of document.querySelectorAll(".figure")) place.style.minHeight = "0";
  };

  const inflate = async () => {
    const packed = atob(document.getElementById("plotly-gzip-base64").textContent);
    const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };

  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // What depends on the color scheme and on the width; the rest of a layout stays as it was written.
  const adapted = (layout, width) => {
    const ink = variable("--soft");
    const changes = {
      "font.color": ink, "hoverlabel.bgcolor": variable("--sheet"), "hoverlabel.bordercolor": variable("--line"),
      "hoverlabel.font.color": variable("--ink"),
    };
    for (const axis of Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
      changes[`${axis}.gridcolor`] = variable("--grid");
    }
    if (width < 560) {
      // A narrow page stacks the legend's words, which takes height from the figure.
      changes["font.size"] = 11;
      if (layout.showlegend) changes.height = layout.height + 110;
    }
    return changes;
  };

  const draw = () => {
    const drawn = [];
    for (const place of document.querySelectorAll(".figure")) {
      const figure = JSON.parse(document.getElementById(`figure-${place.dataset.figure}`).textContent);
      const settings = { responsive: true, displayModeBar: false, displaylogo: false };
      const colors = () => Plotly.relayout(place, adapted(figure.layout, place.clientWidth));
      Plotly.newPlot(place, figure.data, figure.layout, settings).then(colors);
      drawn.push(colors);
    }
    const scheme = window.matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", () => drawn.forEach((colors) => colors()));
  };

  if (typeof DecompressionStream === "undefined") {
    say("This browser cannot unpack the figures (it lacks DecompressionStream); every number is in the tables too.");
    return;
  }
  inflate().then((source) => {
    const script = document.createElement("script");
    script.textContent = source;
    document.head.append(script);
    draw();
    document.documentElement.dataset.figures = "drawn";
  }).catch((error) => say(`The figures could not be drawn: ${error.message}. Every number is in the tables too.`));
})();
