"use strict";
// Draw the curves with uPlot: an element of the class "chart" holds its data as JSON in data-chart (see charts.py).
{
  const DASHES = [[], [6, 3], [1.5, 2.5], [9, 3, 2, 3]];
  const NUM_COLORS = 6;
  const STEPS = [0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((step) => step * 10 ** power));
  const charts = [];

  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const color = (style) => variable(`--line-${style % NUM_COLORS + 1}`);
  const dash = (style) => DASHES[Math.floor(style / NUM_COLORS) % DASHES.length];

  // The running mean of a line that TensorBoard shows too; a missing value stays missing.
  function smooth(values, weight) {
    let sum = 0, total = 0;
    return values.map((value) => {
      if (value === null) return null;
      sum = weight * sum + (1 - weight) * value;
      total = weight * total + (1 - weight);
      return sum / total;
    });
  }

  function format(value, unit) {
    if (value === null || value === undefined) return "–";
    return unit === "%" ? value.toFixed(2) : String(Number(value.toPrecision(4)));
  }

  function swatch(style) {
    const template = document.createElement("template");
    template.innerHTML = `<svg class="swatch" viewBox="0 0 26 8" aria-hidden="true"><line x1="0" x2="26" y1="4" y2="4"
      stroke-width="3" stroke-dasharray="${dash(style).join(" ")}" style="stroke: var(--line-${style % NUM_COLORS + 1})"/></svg>`;
    return template.content;
  }

  // Columns of uPlot for each line: the values, the values before smoothing, and the ends of its band.
  const columns = (data, weight) => [data.x, ...data.lines.flatMap((line) => [
    smooth(line.y, weight), line.y, line.low ?? line.y, line.high ?? line.y])];
  const STRIDE = 4;

  function draw(root) {
    const data = JSON.parse(root.dataset.chart);
    const place = document.createElement("div");
    place.className = "plot";
    place.tabIndex = 0;
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", `${root.dataset.title}, a chart; the arrow keys read its values`);
    const said = document.createElement("p");
    said.className = "unseen";
    said.setAttribute("aria-live", "polite");
    const legend = document.createElement("ul");
    legend.className = "legend";
    root.replaceChildren(place, legend, said);

    const few = data.x.length < 3;
    const line = (style, width, more) => ({stroke: () => color(style), width, dash: dash(style), points: {show: few, size: 6}, ...more});
    const axis = {stroke: () => variable("--muted"), grid: {stroke: () => variable("--grid"), width: 1},
                  ticks: {stroke: () => variable("--grid"), width: 1}, font: "12px system-ui, sans-serif"};
    const numbers = new Map();  // the element of each line's value in the legend
    const shown = data.lines.map(() => true);

    function read(index) {
      data.lines.forEach((one, number) => {
        const last = one.y.findLastIndex((value) => value !== null);
        numbers.get(number).textContent = format(one.y[index ?? last], data.unit);
      });
      at.textContent = index === null || index === undefined ? "" : `${data.x_name} ${data.x[index]}`;
    }

    const margin = data.x.length > 1 ? 0.03 * (data.x.at(-1) - data.x[0]) : 0.5;
    const options = {
      width: Math.max(place.clientWidth, 200), height: root.classList.contains("tall") ? 340 : 230, legend: {show: false},
      scales: {x: {time: false, range: (plot, low, high) => low === data.x[0] && high === data.x.at(-1) ? [low - margin, high + margin] : [low, high]},
               y: {distr: data.log ? 3 : 1}},
      axes: [{...axis, incrs: STEPS, size: 34}, {...axis, size: 60, values: (plot, splits) => splits.map((value) => value === null ? "" : String(Number(value.toPrecision(3))))}],
      cursor: {y: false, sync: {key: "epochs", scales: ["x", null]}, focus: {prox: 20}, drag: {x: true, y: false},
               points: {size: 6}},
      focus: {alpha: 0.3},
      series: [{}, ...data.lines.flatMap(({style, low}) => [
        line(style, 2), line(style, 1, {show: false, alpha: 0.35}),
        {show: !!low, stroke: "transparent", points: {show: false}}, {show: !!low, stroke: "transparent", points: {show: false}}])],
      bands: data.lines.flatMap(({style, low}, number) => low ? [{
        series: [STRIDE * number + 4, STRIDE * number + 3], fill: () => `${color(style)}2e`}] : []),
      hooks: {
        setCursor: [(plot) => read(plot.cursor.idx)],
        draw: [(plot) => {
          if (data.marked === null) return;
          const x = plot.valToPos(data.marked, "x", true);
          if (x < plot.bbox.left || x > plot.bbox.left + plot.bbox.width) return;
          plot.ctx.save();
          plot.ctx.strokeStyle = variable("--muted");
          plot.ctx.setLineDash([2, 4]);
          plot.ctx.beginPath();
          plot.ctx.moveTo(x, plot.bbox.top);
          plot.ctx.lineTo(x, plot.bbox.top + plot.bbox.height);
          plot.ctx.stroke();
          plot.ctx.restore();
        }],
      },
    };

    const at = document.createElement("li");
    at.className = "at";
    let weight = 0;
    const plot = new uPlot(options, columns(data, weight), place);

    function show() {
      plot.batch(() => data.lines.forEach((one, number) => {
        plot.setSeries(STRIDE * number + 1, {show: shown[number]});
        plot.setSeries(STRIDE * number + 2, {show: shown[number] && weight > 0});
        for (const end of [3, 4]) plot.setSeries(STRIDE * number + end, {show: shown[number] && !!one.low});
        legend.children[number].firstChild.setAttribute("aria-pressed", shown[number]);
      }));
    }

    data.lines.forEach((one, number) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      const value = document.createElement("b");
      button.type = "button";
      button.append(swatch(one.style), one.label || root.dataset.title, " ", value);
      numbers.set(number, value);
      button.setAttribute("aria-pressed", "true");
      button.addEventListener("click", (event) => {
        if (event.shiftKey || event.detail === 2) {
          const isAlone = shown.filter(Boolean).length === 1 && event.shiftKey && shown[number];
          shown.fill(isAlone);
          shown[number] = true;
        } else {
          shown[number] = !shown[number];
        }
        if (!shown.includes(true)) shown.fill(true);
        show();
      });
      button.addEventListener("mouseenter", () => plot.setSeries(STRIDE * number + 1, {focus: true}));
      button.addEventListener("mouseleave", () => plot.setSeries(null, {focus: false}));
      item.append(button);
      legend.append(item);
    });
    legend.append(at);
    read(null);

    place.addEventListener("keydown", (event) => {
      const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
      if (!step) return;
      event.preventDefault();
      const index = Math.min(Math.max((plot.cursor.idx ?? (step > 0 ? -1 : data.x.length)) + step, 0), data.x.length - 1);
      plot.setCursor({left: plot.valToPos(data.x[index], "x"), top: 10});
      said.textContent = `${data.x_name} ${data.x[index]}: ` + data.lines.map(
        (one) => `${one.label || root.dataset.title} ${format(one.y[index], data.unit)}`).join(", ");
    });
    new ResizeObserver(() => {
      if (place.clientWidth) plot.setSize({width: place.clientWidth, height: options.height});
    }).observe(place);

    charts.push({
      redraw: () => plot.redraw(false),
      smooth: (next) => {
        weight = next;
        plot.setData(columns(data, weight), false);
        show();
        plot.redraw();
      },
    });
  }

  document.querySelectorAll(".chart").forEach(draw);
  for (const input of document.querySelectorAll("input.smoothing")) {
    input.addEventListener("input", () => {
      input.nextElementSibling.textContent = Number(input.value).toFixed(2);
      charts.forEach((chart) => chart.smooth(Number(input.value)));
    });
  }
  const redraw = () => charts.forEach((chart) => chart.redraw());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  matchMedia("print").addEventListener("change", redraw);
}
