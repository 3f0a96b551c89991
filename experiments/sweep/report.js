"use strict";

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const plot = document.getElementById("plot");
  const tooltip = document.getElementById("tooltip");
  const axes = { x: document.getElementById("x-axis"), y: document.getElementById("y-axis") };
  const showRuns = document.getElementById("show-runs");
  const showPaper = document.getElementById("show-paper");
  const hiddenGroups = new Set();

  function element(tag, properties = {}, ...children) {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  }

  function shape(tag, attributes = {}, ...children) {
    const node = document.createElementNS(plot.namespaceURI, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  // Scales. Frame: { left, right, top, bottom } in pixels of the plot.

  const clamp = (value, low, high) => Math.max(low, Math.min(value, high));
  const paperFigure = (row, name) => (row.paper && name in row.paper ? row.paper[name] : null);

  function domain(name, rows) {
    const figures = rows.map((row) => row.figures[name]);
    const values = figures.flatMap((figure) => [figure.mean, ...(showRuns.checked ? figure.values : [])]);
    if (data.figures[name].has_floor) values.push(...data.floors);
    if (showPaper.checked) values.push(...rows.map((row) => paperFigure(row, name)).filter((value) => value !== null));
    let [low, high] = [Math.min(...values), Math.max(...values)];
    const span = high - low || Math.abs(high) / 10 || 1;
    const ends = figures.filter((figure) => figure.low !== null);
    // Intervals of two seeds can be ten times as wide as all else: they widen the view by half of it at most.
    low = clamp(Math.min(...ends.map((figure) => figure.low)), low - span / 2, low);
    high = clamp(Math.max(...ends.map((figure) => figure.high)), high, high + span / 2);
    return [low - 0.06 * span, high + 0.06 * span];
  }

  function ticks([low, high], num, isShare) {
    const rough = (high - low) / num;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= 0.75 * rough);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const first = Math.ceil(Math.max(low, 0) / step);
    const last = Math.floor((isShare ? Math.min(high, 1) : high) / step + 1e-9);
    return Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => {
      const value = (first + index) * step;
      const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
      return { value, text: value.toLocaleString("en-US", options) };
    });
  }

  function makeAxis(name, rows, start, end, spacing) {
    const range = domain(name, rows);
    const num = Math.max(2, Math.floor(Math.abs(end - start) / spacing));
    return {
      name,
      figure: data.figures[name],
      ticks: ticks(range, num, data.figures[name].is_share),
      at: (value) => start + ((value - range[0]) / (range[1] - range[0])) * (end - start),
    };
  }

  // The parts of the plot

  function drawGrid(x, y, frame) {
    const group = shape("g");
    for (const { value, text } of x.ticks) {
      group.append(shape("line", { class: "grid", x1: x.at(value), x2: x.at(value), y1: frame.top, y2: frame.bottom }));
      group.append(shape("text", { x: x.at(value), y: frame.bottom + 19, "text-anchor": "middle" }, text));
    }
    for (const { value, text } of y.ticks) {
      group.append(shape("line", { class: "grid", x1: frame.left, x2: frame.right, y1: y.at(value), y2: y.at(value) }));
      group.append(shape("text", { x: frame.left - 9, y: y.at(value) + 4, "text-anchor": "end" }, text));
    }
    const hint = (text) => shape("tspan", { class: "hint" }, text);
    const yHint = hint(y.figure.larger_is_better ? "↑ better" : "↓ better");
    const xParts = [hint("← better"), ` ${x.figure.title}`];
    const xTitle = x.figure.larger_is_better ? [`${x.figure.title} `, hint("better →")] : xParts;
    group.append(
      shape("text", { class: "axis-title", x: frame.left, y: 22 }, `${y.figure.title} `, yHint),
      shape("text", { class: "axis-title", x: frame.right, y: frame.bottom + 42, "text-anchor": "end" }, ...xTitle),
    );
    return group;
  }

  function drawFloors(x, y, frame) {
    const group = shape("g");
    for (const floor of data.floors) {
      const text = `noise floor ${floor.toFixed(4)}`;
      if (x.figure.has_floor) {
        const at = x.at(floor);
        group.append(
          shape("line", { class: "floor", x1: at, x2: at, y1: frame.top, y2: frame.bottom }),
          shape("text", { transform: `translate(${at - 6} ${frame.bottom - 8}) rotate(-90)` }, text),
        );
      }
      if (y.figure.has_floor) {
        const at = y.at(floor);
        group.append(
          shape("line", { class: "floor", x1: frame.left, x2: frame.right, y1: at, y2: at }),
          shape("text", { x: frame.right - 6, y: at - 6, "text-anchor": "end" }, text),
        );
      }
    }
    return group;
  }

  /** The rows than which no other is better in one figure and at least as good in the other, the best in x first. */
  function frontOf(rows, x, y) {
    const cost = (row, { name, figure }) => (figure.larger_is_better ? -1 : 1) * row.figures[name].mean;
    const sorted = [...rows].sort((a, b) => cost(a, x) - cost(b, x) || cost(a, y) - cost(b, y));
    let best = Infinity;
    return sorted.filter((row) => {
      const better = cost(row, y) < best;
      best = Math.min(best, cost(row, y));
      return better;
    });
  }

  /** The corners of the step line around what the front is better than. */
  function stepsOf(front, x, y, frame) {
    const corners = [];
    let py = y.figure.larger_is_better ? frame.bottom : frame.top;
    for (const row of front) {
      const px = x.at(row.figures[x.name].mean);
      corners.push([px, py], [px, (py = y.at(row.figures[y.name].mean))]);
    }
    return [...corners, [x.figure.larger_is_better ? frame.left : frame.right, py]];
  }

  function drawWhiskers({ row, px, py }, x, y) {
    const [across, along] = [row.figures[x.name], row.figures[y.name]];
    let path = "";
    if (across.low !== null) path += `M${x.at(across.low)} ${py}H${x.at(across.high)}`;
    if (along.low !== null) path += `M${px} ${y.at(along.low)}V${y.at(along.high)}`;
    return shape("path", { class: `whisker g${row.mark}`, d: path });
  }

  function drawRuns({ row }, x, y) {
    const heights = row.figures[y.name].values;
    const circles = row.figures[x.name].values.map((value, seed) =>
      shape("circle", { class: "run", cx: x.at(value), cy: y.at(heights[seed]), r: 2.6 }),
    );
    return shape("g", { class: `g${row.mark}` }, ...circles);
  }

  function drawMark({ row, px, py }, ofPaper, summary) {
    const place = { x: px - 8, y: py - 8, width: 16, height: 16 };
    const mark = shape("use", { class: "mark", href: `#mark-${row.mark}`, ...place });
    const group = shape("g", {
      class: `point g${row.mark}${ofPaper ? " of-paper" : ""}`,
      "data-row": data.rows.indexOf(row),
      tabindex: 0,
      role: "img",
      "aria-label": summary,
    });
    group.append(shape("circle", { class: "halo", cx: px, cy: py, r: 13 }), mark);
    listen(group, row, px, py, ofPaper);
    return group;
  }

  // Labels: each where it covers least, or nowhere

  const AROUND = [[1, 0], [-1, 0], [0, -1], [0, 1], [1, -1], [-1, -1], [1, 1], [-1, 1]];

  function placeLabels(points, svg, frame, obstacles) {
    const layer = shape("g");
    svg.append(layer);
    for (const { row, px, py } of points) {
      const label = shape("text", { class: `label g${row.mark}` }, row.label);
      layer.append(label);
      const width = label.getComputedTextLength();
      const inside = spotsAround(px, py, width).filter((box) => isWithin(box, frame));
      const costs = inside.map((box) => box.distance / 4 + covered(box, obstacles));
      const best = costs.indexOf(Math.min(...costs));
      if (best < 0 || costs[best] > 150) {
        label.remove();
        continue;
      }
      const box = inside[best];
      label.setAttribute("x", box.left);
      label.setAttribute("y", box.bottom - 4);
      obstacles.push({ ...box, weight: 10 });
      if (box.distance > 10) {
        const [ex, ey] = [clamp(px, box.left, box.right), clamp(py, box.top + 2, box.bottom - 2)];
        layer.prepend(shape("line", { class: `leader g${row.mark}`, x1: px, y1: py, x2: ex, y2: ey }));
      }
    }
  }

  function spotsAround(px, py, width) {
    return [10, 26, 44].flatMap((far) => AROUND.map(([right, down]) => spot(px, py, right, down, far, width)));
  }

  function spot(px, py, right, down, distance, width) {
    const height = 16;
    const away = right && down ? distance * 0.75 : distance;
    const left = px + right * away - ((1 - right) / 2) * width;
    const top = py + down * away - ((1 - down) / 2) * height;
    return { left, right: left + width, top, bottom: top + height, distance };
  }

  function isWithin(box, frame) {
    return box.left > frame.left && box.right < frame.right && box.top > frame.top && box.bottom < frame.bottom;
  }

  function covered(box, obstacles) {
    return obstacles.reduce((sum, other) => sum + other.weight * overlap(box, other), 0);
  }

  function overlap(a, b) {
    const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    return width > 0 && height > 0 ? width * height : 0;
  }

  function around(px, py, radius, weight) {
    return { left: px - radius, right: px + radius, top: py - radius, bottom: py + radius, weight };
  }

  // The whole plot

  let drawnWidth = 0;

  function draw() {
    const width = plot.parentNode.clientWidth;
    if (!width) return; // not laid out
    drawnWidth = width;
    const height = clamp(0.58 * width, 380, 640);
    const frame = { left: 58, right: width - 18, top: 40, bottom: height - 60 };
    const rows = data.rows.filter((row) => !hiddenGroups.has(row.group));
    hideTooltip();
    plot.replaceChildren();
    plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
    if (!rows.length) {
      plot.append(shape("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "No group is selected."));
      return;
    }
    const x = makeAxis(axes.x.value, rows, frame.left, frame.right, clamp(width / 8, 50, 90));
    const y = makeAxis(axes.y.value, rows, frame.bottom, frame.top, 50);
    const points = rows.map((row) => ({ row, px: x.at(row.figures[x.name].mean), py: y.at(row.figures[y.name].mean) }));
    const inside = shape("g", { "clip-path": "url(#inside)" });
    inside.append(...points.map((point) => drawWhiskers(point, x, y)));
    if (showRuns.checked) inside.append(...points.map((point) => drawRuns(point, x, y)));
    const front = frontOf(rows, x, y);
    const steps = stepsOf(front, x, y, frame);
    const line = shape("path", { class: "front", d: `M${steps.join("L")}` });
    plot.append(clipTo(frame), drawGrid(x, y, frame), drawFloors(x, y, frame), line, inside);
    const ofPaper = showPaper.checked ? paperPoints(rows, x, y) : [];
    plot.append(...ofPaper.map((point) => drawMark(point, true, `${point.row.title} in the paper`)));
    plot.append(...points.map((point) => drawMark(point, false, summaryOf(point.row, x, y))));
    const marks = [...points, ...ofPaper].map(({ px, py }) => around(px, py, 8, 10));
    const first = (point) => (front.includes(point.row) ? 0 : 1);
    const thin = steps.slice(1).map((corner, index) => segment(steps[index], corner, 0.6));
    const obstacles = [...marks, ...thin, ...thinObstacles(points, x, y)];
    placeLabels([...points].sort((a, b) => first(a) - first(b)), plot, frame, obstacles);
  }

  function clipTo({ left, right, top, bottom }) {
    const box = shape("rect", { x: left, y: top, width: right - left, height: bottom - top });
    return shape("clipPath", { id: "inside" }, box);
  }

  function paperPoints(rows, x, y) {
    return rows
      .map((row) => ({ row, px: paperFigure(row, x.name), py: paperFigure(row, y.name) }))
      .filter(({ px, py }) => px !== null && py !== null)
      .map(({ row, px, py }) => ({ row, px: x.at(px), py: y.at(py) }));
  }

  function summaryOf(row, x, y) {
    return [x, y].reduce((text, { name, figure }) => `${text}, ${figure.title} ${row.figures[name].text}`, row.title);
  }

  /** Whiskers and single runs: labels may cross them if there is no better place. */
  function thinObstacles(points, x, y) {
    return points.flatMap(({ row, px, py }) => {
      const [across, along] = [row.figures[x.name], row.figures[y.name]];
      const thin = [];
      if (across.low !== null) thin.push(segment([x.at(across.low), py], [x.at(across.high), py], 0.3));
      if (along.low !== null) thin.push(segment([px, y.at(along.low)], [px, y.at(along.high)], 0.3));
      if (!showRuns.checked) return thin;
      return [...thin, ...across.values.map((value, seed) => around(x.at(value), y.at(along.values[seed]), 3, 0.6))];
    });
  }

  function segment([x0, y0], [x1, y1], weight) {
    const [left, right] = [Math.min(x0, x1) - 1, Math.max(x0, x1) + 1];
    return { left, right, top: Math.min(y0, y1) - 1, bottom: Math.max(y0, y1) + 1, weight };
  }

  // The tooltip. It stays while the mouse is over it, and goes with Escape.

  let hiding = 0;

  function listen(group, row, px, py, ofPaper) {
    const show = () => showTooltip(group, row, px, py, ofPaper);
    for (const event of ["mouseenter", "focus", "click"]) group.addEventListener(event, show);
    group.addEventListener("mouseleave", hideSoon);
    group.addEventListener("blur", hideTooltip);
  }

  function hideSoon() {
    clearTimeout(hiding);
    hiding = setTimeout(hideTooltip, 150);
  }

  function hideTooltip() {
    clearTimeout(hiding);
    tooltip.hidden = true;
    for (const lit of document.querySelectorAll(".lit")) lit.classList.remove("lit");
    for (const point of plot.querySelectorAll("[aria-describedby]")) point.removeAttribute("aria-describedby");
  }

  function showTooltip(group, row, px, py, ofPaper) {
    hideTooltip();
    tooltip.replaceChildren(...(ofPaper ? paperDetails(row) : details(row)));
    tooltip.hidden = false;
    group.setAttribute("aria-describedby", "tooltip");
    light(data.rows.indexOf(row), true);
    place(px, py);
  }

  /** Beside the point, on the right where the page has room; beneath it on a phone. */
  function place(px, py) {
    const [width, height] = [tooltip.offsetWidth, tooltip.offsetHeight];
    const room = document.documentElement.clientWidth - plot.getBoundingClientRect().left - 8;
    const left = px + 18 + width <= room ? px + 18 : px - 18 - width;
    const beside = left >= 0;
    tooltip.style.left = `${beside ? left : 0}px`;
    tooltip.style.top = `${beside ? clamp(py - height / 2, 0, Math.max(0, plot.clientHeight - height)) : py + 18}px`;
  }

  function titleOf(row, text) {
    const use = shape("use", { href: `#mark-${row.mark}` });
    const mark = shape("svg", { class: `mark g${row.mark}`, "aria-hidden": "true" }, use);
    return element("p", { className: "title" }, mark, text);
  }

  function details(row) {
    const titles = ["", "mean", "95 % interval"].map((text) => element("th", { scope: "col" }, text));
    const lines = data.order.map((name) => {
      const { text, interval } = row.figures[name];
      const className = [axes.x.value, axes.y.value].includes(name) ? "shown" : "";
      const title = element("th", { scope: "row" }, data.figures[name].title);
      return element("tr", { className }, title, element("td", {}, text), element("td", {}, interval));
    });
    const seeds = element("p", {}, row.seeds);
    const codes = row.flags.flatMap((flag) => [element("code", {}, flag), " "]);
    const flags = element("p", { className: "own-flags" }, ...codes);
    const head = element("thead", {}, element("tr", {}, ...titles));
    return [titleOf(row, row.title), element("table", {}, head, element("tbody", {}, ...lines)), seeds, flags];
  }

  function paperDetails(row) {
    const lines = data.order.filter((name) => paperFigure(row, name) !== null).map((name) => {
      const title = element("th", { scope: "row" }, data.figures[name].title);
      return element("tr", {}, title, element("td", {}, row.paper[name].toFixed(4)));
    });
    return [titleOf(row, `${row.title}, in the paper`), element("table", {}, element("tbody", {}, ...lines))];
  }

  /** Marks a row in the plot and in the tables. */
  function light(index, on) {
    for (const node of document.querySelectorAll(`[data-row="${index}"]`)) node.classList.toggle("lit", on);
  }

  // Tables

  function makeSortable(table) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const headers = [...table.tHead.rows[0].cells];
    headers.forEach((header, column) => {
      const button = element("button", { type: "button", className: "sort" }, ...header.childNodes);
      header.replaceChildren(button);
      button.addEventListener("click", () => {
        const order = nextOrder(header);
        for (const other of headers) other.removeAttribute("aria-sort");
        if (order) header.setAttribute("aria-sort", order);
        body.append(...(order ? sorted(original, column, header.dataset.sort === "text", order) : original));
      });
    });
  }

  /** The best first, then the other way round, then as it was. */
  function nextOrder(header) {
    const orders = header.dataset.sort === "larger" ? ["descending", "ascending"] : ["ascending", "descending"];
    return orders[orders.indexOf(header.getAttribute("aria-sort")) + 1];
  }

  function sorted(rows, column, isText, order) {
    const sign = order === "ascending" ? 1 : -1;
    const value = (row) => row.cells[column].dataset.value;
    const compare = isText ? (a, b) => value(a).localeCompare(value(b)) : (a, b) => value(a) - value(b);
    return [...rows].sort((a, b) => sign * compare(a, b));
  }

  // Controls

  function filterGroup({ target }) {
    const group = Number(target.dataset.groupFilter);
    if (target.checked) hiddenGroups.delete(group);
    else hiddenGroups.add(group);
    for (const other of document.querySelectorAll(`[data-group-filter="${group}"]`)) other.checked = target.checked;
    for (const row of document.querySelectorAll(`tr[data-group="${group}"]`)) row.hidden = !target.checked;
    draw();
  }

  function toggleClass(id, name) {
    const input = document.getElementById(id);
    const toggle = () => document.getElementById("table").classList.toggle(name, input.checked);
    input.addEventListener("change", toggle);
    toggle();
  }

  function prepareScheme() {
    const button = document.getElementById("scheme");
    let dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const name = () => (button.textContent = dark ? "Light scheme" : "Dark scheme");
    button.addEventListener("click", () => {
      dark = !dark;
      document.documentElement.dataset.scheme = dark ? "dark" : "light";
      name();
    });
    name();
  }

  function start() {
    document.documentElement.classList.add("has-script");
    const hasPaper = data.rows.some((row) => row.paper);
    for (const node of document.querySelectorAll(".of-paper")) node.hidden = !hasPaper;
    for (const table of document.querySelectorAll(".sortable:has(tbody)")) makeSortable(table);
    for (const input of document.querySelectorAll("[data-group-filter]")) input.addEventListener("change", filterGroup);
    for (const input of [axes.x, axes.y, showRuns, showPaper]) input.addEventListener("change", draw);
    for (const row of document.querySelectorAll("tr[data-row]")) {
      row.addEventListener("mouseenter", () => light(row.dataset.row, true));
      row.addEventListener("mouseleave", () => light(row.dataset.row, false));
    }
    toggleClass("show-intervals", "with-intervals");
    toggleClass("show-paper-lines", "with-paper");
    tooltip.addEventListener("mouseenter", () => clearTimeout(hiding));
    tooltip.addEventListener("mouseleave", hideSoon);
    document.addEventListener("keydown", (event) => event.key === "Escape" && hideTooltip());
    prepareScheme();
    draw();
    new ResizeObserver(() => plot.parentNode.clientWidth !== drawnWidth && draw()).observe(plot.parentNode);
  }

  start();
})();
