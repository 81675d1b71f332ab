// What all pages share: parts that stay up to date, explanations on hover and focus, copying, choosing runs to compare.
(() => {
  "use strict";
  const EVERY_MS = 2000;

  // ---- live parts: an element with data-live asks for its content anew; 204 says that nothing has changed.
  const live = async (place) => {
    if (document.hidden || place.dataset.asking) return;
    if (place.contains(document.activeElement) && document.activeElement.matches("input, select")) return;
    place.dataset.asking = "1";
    try {
      const url = new URL(place.dataset.live, location.href);
      if ("keepsQuery" in place.dataset) new URLSearchParams(location.search).forEach((v, k) => url.searchParams.set(k, v));
      if (place.dataset.version) url.searchParams.set("version", place.dataset.version);
      const answer = await fetch(url, { headers: { "X-Part": "1" } });
      if (answer.status === 200) swap(place, await answer.text(), answer.headers.get("X-Version") || "");
      if (answer.status === 401) location.reload();
    } catch (error) { /* the server is away: the next round asks again */ } finally { delete place.dataset.asking; }
  };

  // Content is replaced only if it differs; what has the focus, scroll places and chosen boxes are kept.
  const contents = new WeakMap();
  const swap = (place, html, version) => {
    place.dataset.version = version;
    const template = document.createElement("template");
    template.innerHTML = html;
    if (html.trim() === contents.get(place)) return;
    contents.set(place, html.trim());
    const focused = place.contains(document.activeElement) ? pathOf(document.activeElement, place) : null;
    const chosen = new Set([...place.querySelectorAll("input:checked")].map((box) => box.value));
    const tops = [...place.querySelectorAll("pre, .scroll")].map((each) => [each.scrollTop, each.scrollLeft, atEnd(each)]);
    place.replaceChildren(template.content);
    place.querySelectorAll("input[type=checkbox]").forEach((box) => { box.checked = chosen.has(box.value); });
    [...place.querySelectorAll("pre, .scroll")].forEach((each, i) => {
      if (!tops[i]) return;
      each.scrollTop = tops[i][2] ? each.scrollHeight : tops[i][0];
      each.scrollLeft = tops[i][1];
    });
    if (focused) place.querySelector(focused)?.focus({ preventScroll: true });
    place.dispatchEvent(new CustomEvent("swapped", { bubbles: true }));
  };
  const atEnd = (each) => each.scrollHeight - each.scrollTop - each.clientHeight < 8;
  const pathOf = (node, root) => {
    const parts = [];
    for (let each = node; each && each !== root; each = each.parentElement) {
      parts.unshift(`${each.localName}:nth-child(${[...each.parentElement.children].indexOf(each) + 1})`);
    }
    return `:scope > ${parts.join(" > ")}`;
  };
  const round = () => document.querySelectorAll("[data-live]").forEach(live);
  setInterval(round, EVERY_MS);
  document.addEventListener("visibilitychange", round);

  // ---- explanations of operators
  const tip = document.getElementById("tip");
  const showTip = (event) => {
    const op = event.target.closest?.("[data-tip]");
    if (!op) { tip.hidden = true; return; }
    tip.textContent = op.dataset.tip;
    tip.hidden = false;
    const at = op.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(at.left, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${at.bottom + 8 + tip.offsetHeight > innerHeight ? at.top - tip.offsetHeight - 8 : at.bottom + 8}px`;
  };
  document.addEventListener("pointerover", showTip);
  document.addEventListener("focusin", showTip);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

  // ---- buttons
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.asks && !confirm(button.dataset.asks)) event.preventDefault();
    if (button.dataset.copy) {
      const text = document.querySelector(button.dataset.copy).textContent;
      try { await navigator.clipboard.writeText(text); } catch (error) { select(document.querySelector(button.dataset.copy)); document.execCommand("copy"); }
      button.textContent = "Copied";
    }
    if (button.dataset.more) {
      const answer = await fetch(button.dataset.more);
      if (answer.ok) button.parentElement.outerHTML = await answer.text();
    }
  });
  const select = (node) => { const range = document.createRange(); range.selectNodeContents(node); getSelection().removeAllRanges(); getSelection().addRange(range); };

  // ---- order of the pictures
  document.addEventListener("change", async (event) => {
    if (event.target.name !== "order") return;
    const place = document.getElementById("pictures");
    const answer = await fetch(`/runs/${place.dataset.run}/parts/pictures?order=${event.target.value}`);
    if (answer.ok) place.innerHTML = await answer.text();
  });

  // ---- runs to compare
  const compare = document.getElementById("compare");
  const count = () => {
    const chosen = [...document.querySelectorAll("input[name=chosen]:checked")].map((box) => box.value);
    compare.elements.ids.value = chosen.join(",");
    compare.querySelector("button").disabled = chosen.length < 2 || chosen.length > 4;
    compare.querySelector("[role=status]").textContent = chosen.length ? `${chosen.length} chosen` : "";
  };
  if (compare) { document.addEventListener("change", count); document.addEventListener("swapped", count); count(); }
})();
