// A run's curve, tree and table of trials, and the curves of compared runs. Drawn here, so that 5,000 trials stay quick.
(() => {
  "use strict";
  const EVERY_MS = 2000;
  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const json = async (url) => { const answer = await fetch(url); return answer.status === 200 ? answer.json() : null; };
  const NUMBER = 0, STATE = 1, VALUE = 2, SECONDS = 3, PRESET = 4, CAUSE = 5, FORMULA = 6, CURVE = 7;
  const LINES = ["#2f7cf6", "#0f9d76", "#d97706", "#a855f7"];

  // ------------------------------------------------------------------ curves
  const bestSoFar = (rows) => {
    let best = -Infinity;
    const steps = [];
    for (const row of rows) if (row[STATE] === "finished" && row[VALUE] !== null) { best = Math.max(best, row[VALUE]); steps.push([row[NUMBER], best]); }
    return steps;
  };
  const axes = (canvas, lastNumber, values) => {
    const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * ratio; canvas.height = height * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio); pen.clearRect(0, 0, width, height);
    // The bulk of the values: single failures far below would flatten the rest.
    const sorted = values.slice().sort((a, b) => a - b);
    let low = Math.min(0, sorted[Math.floor(sorted.length * 0.02)] ?? 0), high = Math.max(0, sorted[sorted.length - 1] ?? 1);
    const margin = 0.06 * ((high - low) || 1); low -= margin; high += margin;
    const x = (number) => 52 + (number / Math.max(1, lastNumber)) * (width - 66);
    const y = (value) => 8 + (1 - (Math.max(low, value) - low) / (high - low)) * (height - 44);
    pen.font = "12px system-ui, sans-serif"; pen.fillStyle = variable("--soft"); pen.strokeStyle = variable("--grid"); pen.lineWidth = 1;
    const step = niceStep((high - low) / 5);
    pen.textAlign = "right";
    for (let v = Math.ceil(low / step) * step; v <= high; v += step) { line(pen, 52, y(v), width - 14, y(v)); pen.fillText(+v.toPrecision(3), 46, y(v) + 4); }
    pen.textAlign = "center";
    const stepX = Math.max(1, niceStep(lastNumber / 8));
    for (let n = 0; n <= lastNumber; n += stepX) pen.fillText(n, x(n), height - 18);
    pen.fillText("trial", width / 2, height - 3);
    pen.strokeStyle = variable("--soft"); pen.setLineDash([3, 4]); line(pen, 52, y(0), width - 14, y(0)); pen.setLineDash([]);
    pen.textAlign = "right"; pen.fillText("no distillation", width - 16, y(0) - 4);
    return { pen, x, y };
  };
  const niceStep = (raw) => { const power = 10 ** Math.floor(Math.log10(raw || 1)); return [1, 2, 5, 10].map((k) => k * power).find((k) => k >= raw); };
  const line = (pen, x0, y0, x1, y1) => { pen.beginPath(); pen.moveTo(x0, y0); pen.lineTo(x1, y1); pen.stroke(); };
  const stairs = (pen, steps, x, y, color) => {
    pen.strokeStyle = color; pen.lineWidth = 2; pen.beginPath();
    steps.forEach(([number, value], i) => { if (i) pen.lineTo(x(number), y(steps[i - 1][1])); pen[i ? "lineTo" : "moveTo"](x(number), y(value)); });
    pen.stroke();
  };

  const runCanvas = document.getElementById("curve");
  let rows = [], byNumber = new Map(), spots = [];
  const drawCurve = () => {
    const valued = rows.filter((row) => row[VALUE] !== null);
    const last = rows.length ? rows[rows.length - 1][NUMBER] : 1;
    const { pen, x, y } = axes(runCanvas, last, valued.map((row) => row[VALUE]));
    const colors = { finished: variable("--found"), pruned: "#8b5cf6" };
    spots = [];
    const size = rows.length > 1000 ? 1.6 : 3;
    for (const row of rows) {
      const px = x(row[NUMBER]), py = row[VALUE] === null ? runCanvas.clientHeight - 40 : y(row[VALUE]);
      spots.push([px, py, row]);
      pen.fillStyle = row[VALUE] === null ? (row[STATE] === "running" ? variable("--soft") : variable("--bad")) : row[PRESET] ? variable("--warn") : colors[row[STATE]] || variable("--soft");
      pen.beginPath(); pen.arc(px, py, row[PRESET] ? size + 1.5 : size, 0, 7); pen.fill();
    }
    stairs(pen, bestSoFar(rows), x, y, variable("--accent"));
  };
  const nearest = (event) => {
    const box = runCanvas.getBoundingClientRect(), mx = event.clientX - box.left, my = event.clientY - box.top;
    let found = null, least = 400;
    for (const [px, py, row] of spots) { const d = (px - mx) ** 2 + (py - my) ** 2; if (d < least) { least = d; found = row; } }
    return found;
  };
  if (runCanvas) {
    const tip = document.getElementById("tip");
    runCanvas.addEventListener("pointermove", (event) => {
      const row = nearest(event);
      runCanvas.style.cursor = row ? "pointer" : "";
      tip.hidden = !row;
      if (!row) return;
      tip.textContent = `trial ${row[NUMBER]} ${row[PRESET]}: ${row[VALUE] ?? (row[CAUSE] || row[STATE])}  ${row[FORMULA]}`;
      tip.style.left = `${Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)}px`;
      tip.style.top = `${event.clientY + 16}px`;
    });
    runCanvas.addEventListener("click", (event) => { const row = nearest(event); if (row) location.href = `/runs/${runCanvas.dataset.run}/trials/${row[NUMBER]}`; });
  }

  const compareCanvas = document.getElementById("curves");
  const drawCompared = async () => {
    const ids = compareCanvas.dataset.runs.split(","), names = compareCanvas.dataset.names.split("|");
    const all = await Promise.all(ids.map((id) => json(`/runs/${id}/data/trials`)));
    const steps = all.map((each) => bestSoFar(each ? each.rows : []));
    const last = Math.max(1, ...all.map((each) => (each && each.rows.length ? each.rows[each.rows.length - 1][NUMBER] : 1)));
    const { pen, x, y } = axes(compareCanvas, last, steps.flat().map((step) => step[1]));
    steps.forEach((each, i) => {
      stairs(pen, each, x, y, LINES[i]);
      pen.fillStyle = LINES[i]; pen.textAlign = "left"; pen.fillText(`■ ${names[i]} (${ids[i].slice(-4)})`, 60, 20 + 16 * i);
    });
    compareCanvas.dataset.drawn = "1";
  };

  // ------------------------------------------------------------------ tree
  const tree = document.getElementById("tree");
  let nodes = [], children = [], opened = 0, treeVersion = 0, colorBy = "mean", focusNode = 0;
  const SCALE = [[59, 76, 138], [44, 160, 160], [250, 204, 60]];
  const DIVERGING = [[180, 60, 60], [150, 150, 150], [30, 150, 110]];
  const mix = (scale, share) => {
    const s = Math.max(0, Math.min(1, share)), [a, b, part] = s <= 0.5 ? [scale[0], scale[1], s * 2] : [scale[1], scale[2], s * 2 - 1];
    return a.map((v, i) => Math.round(v + (b[i] - v) * part));
  };
  const colored = (node, range) => {
    const value = node[colorBy];
    if (value === null || value === undefined) return [[139, 147, 161], "#101722"];
    const share = colorBy === "gain" ? 0.5 + value / (2 * range[2] || 1) : range[1] > range[0] ? (value - range[0]) / (range[1] - range[0]) : 0.5;
    const color = mix(colorBy === "gain" ? DIVERGING : SCALE, share);
    return [color, inkOn(color)];
  };
  // White or near-black, whichever has the greater contrast (WCAG's relative luminance).
  const inkOn = (color) => {
    const [r, g, b] = color.map((v) => { const c = v / 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
    const light = 0.2126 * r + 0.7152 * g + 0.0722 * b;
    return 1.05 / (light + 0.05) >= (light + 0.05) / 0.0557 ? "#ffffff" : "#101722";
  };
  const words = (node) => {
    const gain = node.gain === undefined || node.gain === null ? "" : `; adds ${signed(node.gain)}${node.low === null || node.low === undefined ? "" : ` [${signed(node.low)}, ${signed(node.high)}]`} to its alternatives`;
    const mean = node.mean === null ? "no finished trial" : `mean ${signed(node.mean)}, best ${signed(node.best)}`;
    return `${node.question ? `${node.question}: ` : ""}${node.label}; ${node.visits} visits, ${mean}${gain}${node.trials ? `; trials ${node.trials.join(", ")}` : ""}`;
  };
  const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toPrecision(3)}`;
  const depthBelow = (i) => 1 + Math.max(0, ...children[i].map(depthBelow));
  const drawTree = () => {
    if (!nodes.length) return;
    const height = tree.clientHeight, width = tree.clientWidth;
    const columns = Math.min(depthBelow(opened), width < 500 ? 3 : 6), columnWidth = width / columns;
    const known = nodes.map((node) => node[colorBy]).filter((value) => value !== null && value !== undefined);
    const range = [Math.min(...known), Math.max(...known), Math.max(1e-9, ...known.map(Math.abs))];
    const hadFocus = tree.contains(document.activeElement);
    const boxes = document.createDocumentFragment();
    const put = (i, depth, top, tall) => {
      const node = nodes[i], box = document.createElement("button"), [color, ink] = colored(node, range);
      box.type = "button"; box.dataset.node = i; box.tabIndex = i === focusNode ? 0 : -1;
      box.setAttribute("role", "treeitem"); box.setAttribute("aria-level", depth + 1); box.setAttribute("aria-label", words(node));
      if (children[i].length) box.setAttribute("aria-expanded", depth + 1 < columns ? "true" : "false");
      box.style.cssText = `left:${depth * columnWidth}px;top:${top}px;width:${columnWidth}px;height:${tall}px;background:rgb(${color});color:${ink}`;
      if (tall >= 12) box.textContent = node.label;
      boxes.append(box);
      if (depth + 1 >= columns) return;
      let at = top;
      for (const child of children[i]) {
        const share = (nodes[child].visits / node.visits) * tall;
        if (share >= 2.5) put(child, depth + 1, at, share);
        at += share;
      }
    };
    put(opened, 0, 0, height);
    tree.replaceChildren(boxes);
    if (!tree.querySelector('[tabindex="0"]')) tree.firstChild.tabIndex = 0;
    if (hadFocus) (tree.querySelector(`[data-node="${focusNode}"]`) || tree.firstChild).focus();
    drawPath();
  };
  const drawPath = () => {
    const path = document.getElementById("tree-path"), above = [];
    for (let i = opened; i >= 0; i = nodes[i].parent) above.unshift(i);
    path.replaceChildren(...above.flatMap((i, k) => {
      const button = document.createElement("button");
      button.type = "button"; button.textContent = nodes[i].label; button.dataset.node = i;
      return k ? [" › ", button] : [button];
    }));
  };
  const open = (i) => { opened = i; focusNode = i; drawTree(); document.getElementById("tree-words").textContent = words(nodes[i]); };
  const go = (i) => {
    focusNode = i;
    const box = tree.querySelector(`[data-node="${i}"]`);
    if (!box) { opened = nodes[i].parent >= 0 ? nodes[i].parent : i; drawTree(); }
    tree.querySelectorAll("button").forEach((each) => { each.tabIndex = +each.dataset.node === i ? 0 : -1; });
    tree.querySelector(`[data-node="${i}"]`)?.focus();
  };
  if (tree) {
    const toOpen = (event) => { const box = event.target.closest("[data-node]"); if (box) open(+box.dataset.node); };
    tree.addEventListener("click", toOpen);
    document.getElementById("tree-path").addEventListener("click", toOpen);
    const say = (event) => { const box = event.target.closest?.("#tree [data-node]"); if (box) document.getElementById("tree-words").textContent = words(nodes[+box.dataset.node]); };
    tree.addEventListener("pointerover", say); tree.addEventListener("focusin", say);
    tree.addEventListener("keydown", (event) => {
      const i = +(document.activeElement.dataset.node ?? -1);
      if (i < 0) return;
      const siblings = nodes[i].parent >= 0 ? children[nodes[i].parent] : [i], k = siblings.indexOf(i);
      const target = { ArrowRight: children[i][0], ArrowLeft: nodes[i].parent, ArrowDown: siblings[k + 1], ArrowUp: siblings[k - 1] }[event.key];
      if (event.key === "Backspace" && nodes[opened].parent >= 0) { event.preventDefault(); open(nodes[opened].parent); }
      else if (target !== undefined && target >= 0) { event.preventDefault(); go(target); }
    });
    document.querySelectorAll("input[name=tree-color]").forEach((input) => input.addEventListener("change", () => { colorBy = input.value; drawTree(); }));
  }
  const loadTree = async () => {
    const found = await json(`/runs/${runCanvas.dataset.run}/data/tree?since=${treeVersion}`);
    if (!found || !found.nodes.length) return;
    const path = []; // labels of the opened node's path, to find it again among new nodes
    for (let i = nodes.length ? opened : -1; i >= 0; i = nodes[i].parent) path.unshift(nodes[i].label);
    nodes = found.nodes; treeVersion = found.version;
    children = nodes.map(() => []);
    nodes.forEach((node, i) => { if (node.parent >= 0) children[node.parent].push(i); });
    children.forEach((each) => each.sort((a, b) => nodes[b].visits - nodes[a].visits));
    opened = 0;
    for (const label of path.slice(1)) { const next = children[opened].find((i) => nodes[i].label === label); if (next === undefined) break; opened = next; }
    focusNode = opened;
    drawTree();
  };

  // ------------------------------------------------------------------ trials
  const table = document.getElementById("trials");
  const HEIGHT = 32;
  let shown = [], sortBy = VALUE, falling = true, filter = "";
  const COLUMNS = [["trial", NUMBER], ["state", STATE], ["reward", VALUE], ["seconds", SECONDS], ["preset, cause", CAUSE], ["by epoch", CURVE], ["loss", FORMULA]];
  const key = (row) => (sortBy === CURVE ? row[CURVE].length : sortBy === CAUSE ? row[PRESET] || row[CAUSE] : row[sortBy]);
  const arrange = () => {
    const needle = filter.toLowerCase();
    shown = needle ? rows.filter((row) => `${row[NUMBER]} ${row[STATE]} ${row[PRESET]} ${row[CAUSE]} ${row[FORMULA]}`.toLowerCase().includes(needle)) : rows.slice();
    const sign = falling ? -1 : 1;
    shown.sort((a, b) => {
      const p = key(a), q = key(b);
      if (p === null || q === null) return (p === null) - (q === null) || a[NUMBER] - b[NUMBER];
      return (p < q ? -sign : p > q ? sign : 0) || a[NUMBER] - b[NUMBER];
    });
    document.getElementById("trials-count").textContent = `${shown.length} of ${rows.length} trials`;
    table.setAttribute("aria-rowcount", shown.length + 1);
    drawRows();
  };
  const cell = (content, role = "cell") => { const each = document.createElement("div"); each.setAttribute("role", role); each.append(content); return each; };
  const spark = (curve) => {
    if (curve.length < 2) return "";
    const values = curve.map((point) => point[1] ?? 0), low = Math.min(...values), high = Math.max(...values);
    const points = values.map((v, i) => `${(i / (values.length - 1)) * 90 + 2},${20 - ((v - low) / ((high - low) || 1)) * 18}`).join(" ");
    const holder = document.createElement("template");
    holder.innerHTML = `<svg viewBox="0 0 96 22" aria-hidden="true"><polyline points="${points}"/></svg>`;
    return holder.content;
  };
  const drawRows = () => {
    const body = table.querySelector(".body");
    body.style.height = `${shown.length * HEIGHT}px`;
    const first = Math.max(0, Math.floor(table.scrollTop / HEIGHT) - 5), last = Math.min(shown.length, first + Math.ceil(table.clientHeight / HEIGHT) + 10);
    const active = document.activeElement?.closest?.("#trials .body [role=row]")?.dataset.number;
    body.replaceChildren(...shown.slice(first, last).map((row, i) => {
      const each = document.createElement("div"), link = document.createElement("a");
      each.setAttribute("role", "row"); each.setAttribute("aria-rowindex", first + i + 2); each.dataset.number = row[NUMBER];
      each.style.top = `${(first + i) * HEIGHT}px`;
      link.href = `/runs/${runCanvas.dataset.run}/trials/${row[NUMBER]}`; link.textContent = row[NUMBER];
      const value = row[VALUE] === null ? "–" : row[VALUE].toFixed(4);
      each.append(cell(link), cell(row[STATE]), cell(value), cell(row[SECONDS] || "–"), cell(row[PRESET] || row[CAUSE]), cell(spark(row[CURVE])), cell(row[FORMULA]));
      each.lastChild.title = row[FORMULA];
      return each;
    }));
    if (active !== undefined) body.querySelector(`[data-number="${active}"] a`)?.focus({ preventScroll: true });
  };
  if (table) {
    const head = table.querySelector(".head");
    COLUMNS.forEach(([name, column]) => {
      const button = document.createElement("button");
      button.type = "button"; button.textContent = name;
      const each = cell(button, "columnheader");
      each.setAttribute("aria-sort", column === sortBy ? "descending" : "none");
      button.addEventListener("click", () => {
        falling = column === sortBy ? !falling : column === VALUE;
        sortBy = column;
        head.querySelectorAll("[role=columnheader]").forEach((other) => other.setAttribute("aria-sort", "none"));
        each.setAttribute("aria-sort", falling ? "descending" : "ascending");
        arrange();
      });
      head.append(each);
    });
    let waiting = false;
    table.addEventListener("scroll", () => { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; drawRows(); }); } });
    document.getElementById("trial-filter").addEventListener("input", (event) => { filter = event.target.value; arrange(); });
  }

  // ------------------------------------------------------------------ live
  let version = 0;
  const loadTrials = async () => {
    const found = await json(`/runs/${runCanvas.dataset.run}/data/trials?since=${version}`);
    if (!found) return;
    if (found.version < version) { byNumber = new Map(); version = 0; return loadTrials(); } // the server began anew
    version = found.version;
    if (!found.rows.length && rows.length) return;
    found.rows.forEach((row) => byNumber.set(row[NUMBER], row));
    rows = [...byNumber.values()].sort((a, b) => a[NUMBER] - b[NUMBER]);
    drawCurve(); arrange();
    await loadTree();
    document.documentElement.dataset.loaded = rows.length;
  };
  const again = async () => { try { if (!document.hidden) await loadTrials(); } catch (error) { /* the next round asks again */ } setTimeout(again, EVERY_MS); };
  const redraw = () => { if (runCanvas) { drawCurve(); drawTree(); drawRows(); } if (compareCanvas) drawCompared(); };
  let timer = 0;
  addEventListener("resize", () => { clearTimeout(timer); timer = setTimeout(redraw, 120); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  if (runCanvas) again();
  if (compareCanvas) drawCompared();
})();
