"use strict";
// Compare two runs of a table: element "compare" holds scores and settings of its runs as JSON in data-runs.
for (const root of document.querySelectorAll(".compare")) {
  const runs = JSON.parse(root.dataset.runs);
  const [first, second] = root.querySelectorAll("select");
  const [settings, scores] = root.querySelectorAll("tbody");
  const text = (value) => value === null || value === undefined ? "n/a" : (100 * value).toFixed(2);

  function fill(body, rows) {
    body.replaceChildren(...rows.map((cells) => {
      const row = document.createElement("tr");
      cells.forEach((cell, column) => {
        const element = document.createElement(column ? "td" : "th");
        if (!column) element.scope = "row";
        element.textContent = cell;
        row.append(element);
      });
      return row;
    }));
  }

  function compare() {
    const [a, b] = [first, second].map((select) => runs[Number(select.value)]);
    const names = [...new Set([...Object.keys(a.scores), ...Object.keys(b.scores)])];
    const rows = names.map((name) => [name, a.scores[name], b.scores[name]]);
    const difference = ([, one, other]) => one === null || other === null || one === undefined || other === undefined ? null : other - one;
    const whole = rows.filter(([name]) => a.means.includes(name));
    const classes = rows.filter(([name]) => !a.means.includes(name)).sort((one, other) => Math.abs(difference(other) ?? 0) - Math.abs(difference(one) ?? 0));
    fill(scores, [...whole, ...classes].map((row) => {
      const by = difference(row);
      return [row[0], text(row[1]), text(row[2]), by === null ? "n/a" : (by > 0 ? "+" : "") + (100 * by).toFixed(2)];
    }));
    [...scores.rows].forEach((row, number) => {
      const by = difference([...whole, ...classes][number]);
      row.classList.toggle("whole", number < whole.length);
      row.lastChild.className = by > 0.00005 ? "better" : by < -0.00005 ? "worse" : "";
    });
    const keys = [...new Set([...Object.keys(a.settings), ...Object.keys(b.settings)])].filter((key) => a.settings[key] !== b.settings[key]);
    fill(settings, keys.map((key) => [key, a.settings[key] ?? "–", b.settings[key] ?? "–"]));
    settings.parentElement.hidden = !keys.length;
  }

  for (const select of [first, second]) select.addEventListener("change", compare);
  compare();
}
// Draw a score against a cost: element "scatter" has a point for each run as JSON in data-points.
for (const root of document.querySelectorAll(".scatter")) {
  const data = JSON.parse(root.dataset.points);
  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const place = document.createElement("div"), said = document.createElement("p");
  place.className = "plot";
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", data.points.map(({x, y, label}) => `${label}: ${x} ${data.x_name}, ${data.y_name} ${y}`).join("; "));
  said.className = "where readout";
  root.append(place, said);
  const axis = {stroke: () => variable("--muted"), grid: {stroke: () => variable("--grid"), width: 1},
                ticks: {stroke: () => variable("--grid"), width: 1}, font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif", labelSize: 18};
  const wider = (plot, low, high) => { const margin = 0.08 * (high - low) || Math.abs(high) / 10 || 1; return [low - margin, high + margin]; };
  // The run nearest to the pointer, with which the point and the text go.
  const nearest = (plot) => {
    const {left, top} = plot.cursor;
    const far = data.points.map(({x, y}) => Math.hypot(plot.valToPos(x, "x") - left, plot.valToPos(y, "y") - top));
    const found = far.indexOf(Math.min(...far));
    return left >= 0 && far[found] < 40 ? found : null;
  };
  // Write the names beside their points, as far as there is room.
  function label(plot) {
    const {ctx, bbox} = plot, dense = devicePixelRatio || 1, taken = [];
    ctx.save();
    ctx.font = `${12 * dense}px system-ui, sans-serif`;
    ctx.fillStyle = variable("--ink");
    [ctx.textAlign, ctx.textBaseline] = ["left", "middle"];
    for (const {x, y, label} of data.points) {
      const width = ctx.measureText(label).width, height = 14 * dense;
      const [left, top] = [plot.valToPos(x, "x", true), plot.valToPos(y, "y", true)];
      const begin = left + width + 10 * dense > bbox.left + bbox.width ? left - width - 8 * dense : left + 8 * dense;
      if (begin < bbox.left || taken.some(([a, b, c]) => Math.abs(top - c) < height && begin < b && a < begin + width)) continue;
      taken.push([begin, begin + width, top]);
      ctx.fillText(label, begin, top);
    }
    ctx.restore();
  }

  const plot = new uPlot({
    width: Math.max(place.clientWidth, 200), height: 230, legend: {show: false},
    scales: {x: {time: false, range: wider}, y: {range: wider}},
    axes: [{...axis, label: data.x_name, size: 34}, {...axis, label: data.y_name, size: 50}],
    series: [{}, {stroke: () => variable("--line-1"), fill: () => variable("--line-1"), paths: () => null, points: {show: true, size: 9, fill: () => variable("--line-1")}}],
    cursor: {drag: {x: false, y: false}, x: false, y: false, dataIdx: nearest, points: {size: 14}},
    hooks: {draw: [label], setCursor: [(plot) => {
      const point = data.points[nearest(plot)];
      said.textContent = point ? `${point.label}: ${point.x} ${data.x_name}, ${data.y_name} ${point.y}` : "";
    }]},
  }, [data.points.map(({x}) => x), data.points.map(({y}) => y)], place);
  new ResizeObserver(() => place.clientWidth && plot.setSize({width: place.clientWidth, height: 230})).observe(place);
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", () => plot.redraw(false));
}
