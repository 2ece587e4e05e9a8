"use strict";
// Show the images of a run one by one: input, target, prediction and errors, from the figures of the element "viewer".
// Without this script the figures are shown as they are. The label maps are PNGs whose bytes are the ids of the classes.
for (const viewer of document.querySelectorAll(".viewer")) {
  const VOID = 255;
  const VOID_COLOR = [0, 0, 0, 255], UNSCORED = [200, 200, 200, 255], WRONG = [255, 45, 45, 255];
  const LAYERS = ["input", "target", "prediction", "errors"];
  const classes = JSON.parse(viewer.dataset.classes);
  const figures = [...viewer.querySelectorAll("figure")];
  const state = {place: 0, view: "all", split: 0.5, opacity: 0.6, only: new Set(), zoom: 1, x: 0.5, y: 0.5};
  const $ = (selector) => viewer.querySelector(selector);
  const stage = $(".stage"), readout = $(".readout"), opacity = $(".opacity"), split = $(".split");
  let shown = null;  // of the figure that is looked at: {input, target, prediction, width, height, layers}
  let loads = 0;

  // Return the ids of a PNG with 8 bits a pixel and unfiltered rows, which encode_map writes.
  async function readIds(address, width, height) {
    const bytes = Uint8Array.from(atob(address.split(",")[1]), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer), parts = [];
    for (let at = 8; at < bytes.length; at += 12 + view.getUint32(at)) {
      if (String.fromCharCode(...bytes.subarray(at + 4, at + 8)) === "IDAT") parts.push(bytes.subarray(at + 8, at + 8 + view.getUint32(at)));
    }
    const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
    const rows = new Uint8Array(await new Response(stream).arrayBuffer());
    const ids = new Uint8Array(width * height);
    for (let row = 0; row < height; row++) ids.set(rows.subarray(row * (width + 1) + 1, (row + 1) * (width + 1)), row * width);
    return ids;
  }

  async function load(place) {
    const load = ++loads;
    state.place = (place + figures.length) % figures.length;
    const [image, target, prediction] = figures[state.place].querySelectorAll("img");
    await image.decode();
    const {naturalWidth: width, naturalHeight: height} = image;
    const maps = await Promise.all([target, prediction].map((map) => readIds(map.src, width, height)));
    if (load !== loads) return;  // another one was asked for meanwhile
    shown = {input: image, target: maps[0], prediction: maps[1], width, height, layers: {}};
    state.zoom = 1;
    listClasses();
    update();
  }

  // The colors of a layer over the input, as a canvas; transparent where the input is to be seen.
  function paint(layer) {
    if (shown.layers[layer]) return shown.layers[layer];
    const {width, height, target, prediction} = shown;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d"), pixels = context.createImageData(width, height);
    const all = !state.only.size;
    for (let at = 0; at < target.length; at++) {
      const is = target[at], seen = prediction[at];
      let color = null;
      if (layer === "errors") {
        if (is === VOID) color = all ? UNSCORED : null;
        else if (is !== seen && (all || state.only.has(is) || state.only.has(seen))) color = WRONG;
      } else {
        const id = layer === "target" ? is : seen;
        if (all || state.only.has(id)) color = id === VOID ? VOID_COLOR : [...classes[id].color, 255];
      }
      if (color) pixels.data.set(color, 4 * at);
    }
    context.putImageData(pixels, 0, 0);
    return shown.layers[layer] = canvas;
  }

  // Draw a layer into the left-most `share` of a canvas, zoomed as the state says.
  function drawLayer(canvas, layer, share = 1, from = 0) {
    const context = canvas.getContext("2d"), {width, height} = shown;
    context.save();
    context.beginPath();
    context.rect(from * canvas.width, 0, share * canvas.width, canvas.height);
    context.clip();
    const scale = canvas.width / width * state.zoom;
    context.translate(canvas.width / 2, canvas.height / 2);
    context.scale(scale, scale);
    context.translate(-state.x * width, -state.y * height);
    context.imageSmoothingEnabled = scale < 3;
    context.drawImage(shown.input, 0, 0, width, height);
    if (layer === "errors") {
      context.globalCompositeOperation = "saturation";  // without colors, so that red stands out
      context.fillStyle = "#808080";
      context.fillRect(0, 0, width, height);
      context.globalCompositeOperation = "source-over";
      context.fillStyle = "rgb(0 0 0 / 45%)";
      context.fillRect(0, 0, width, height);
    }
    if (layer !== "input") {
      context.globalAlpha = state.opacity;
      context.imageSmoothingEnabled = scale < 1;
      context.drawImage(paint(layer), 0, 0);
    }
    context.restore();
  }

  function panels() {
    if (state.view === "all") return LAYERS.map((layer) => [layer]);
    return [state.view === "slider" ? [$(".left").value, $(".right").value] : [state.view]];
  }

  // Make the canvases of the view, as large as the stage allows, and draw them.
  function update() {
    const wanted = panels(), ratio = shown.width / shown.height, gap = 6;
    const inRow = wanted.length === 1 ? 1 : ratio > 2.6 ? 1 : 2;
    const room = (stage.clientWidth - (inRow - 1) * gap) / inRow;
    const most = (wanted.length === 1 ? 0.62 : 0.31) * Math.max(innerHeight, 600);
    const width = Math.max(120, Math.floor(Math.min(room, most * ratio)));
    stage.style.gridTemplateColumns = `repeat(${inRow}, ${width}px)`;
    while (stage.children.length > wanted.length) stage.lastChild.remove();
    while (stage.children.length < wanted.length) {
      const panel = document.createElement("div");
      panel.append(document.createElement("canvas"), document.createElement("span"));
      stage.append(panel);
    }
    wanted.forEach(([left, right], number) => {
      const [canvas, title] = stage.children[number].children;
      const dense = Math.min(devicePixelRatio || 1, 2);
      [canvas.width, canvas.height] = [Math.round(width * dense), Math.round(width / ratio * dense)];
      [canvas.style.width, canvas.style.height] = [`${width}px`, `${width / ratio}px`];
      drawLayer(canvas, left, right ? state.split : 1);
      if (right) {
        drawLayer(canvas, right, 1 - state.split, state.split);
        const context = canvas.getContext("2d");
        context.fillStyle = "#ffffff";
        context.fillRect(state.split * canvas.width - dense, 0, 2 * dense, canvas.height);
      }
      title.textContent = right ? `${left} | ${right}` : left;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${title.textContent} of ${figures[state.place].dataset.name}`);
    });
    viewer.dataset.view = state.view;
    viewer.classList.toggle("zoomed", state.zoom > 1);
    $(".title").textContent = figures[state.place].querySelector("figcaption").textContent;
    for (const button of viewer.querySelectorAll("[data-show]")) button.setAttribute("aria-pressed", button.dataset.show === state.view);
    thumbs.forEach((thumb, place) => thumb.toggleAttribute("aria-current", place === state.place));
    [opacity.value, split.value] = [state.opacity, state.split];
  }

  function listClasses() {
    const present = new Set([...shown.target, ...shown.prediction]);
    const list = $(".classes");
    list.replaceChildren(...classes.flatMap(({name, color}, id) => {
      if (!present.has(id) && !state.only.has(id)) return [];
      const item = document.createElement("li"), button = document.createElement("button"), square = document.createElement("span");
      square.className = "color";
      square.style.background = `rgb(${color.join(" ")})`;
      button.type = "button";
      button.append(square, name);
      button.setAttribute("aria-pressed", state.only.has(id));
      button.addEventListener("click", () => {
        if (!state.only.delete(id)) state.only.add(id);
        filter();
      });
      item.append(button);
      return [item];
    }));
    $(".reset").hidden = !state.only.size;
  }

  function filter() {
    const focused = [...$(".classes").querySelectorAll("button")].indexOf(document.activeElement);
    shown.layers = {};
    listClasses();
    $(".classes").querySelectorAll("button")[focused]?.focus();
    update();
  }

  function zoomTo(zoom, x = state.x, y = state.y) {
    state.zoom = Math.min(Math.max(zoom, 1), 16);
    const margin = 0.5 / state.zoom;
    state.x = Math.min(Math.max(x, margin), 1 - margin);
    state.y = Math.min(Math.max(y, margin), 1 - margin);
    update();
  }

  function show(view) {
    state.view = view;
    update();
  }

  // Return where a pointer is in the image, as fractions.
  function locate(event, canvas) {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map(
      (value, axis) => (value - 0.5) / state.zoom + [state.x, state.y][axis]);
  }

  function readPixel(event) {
    if (!shown || event.target.tagName !== "CANVAS") return;
    const [x, y] = locate(event, event.target);
    const column = Math.floor(x * shown.width), row = Math.floor(y * shown.height);
    if (column < 0 || row < 0 || column >= shown.width || row >= shown.height) return;
    const [is, seen] = [shown.target, shown.prediction].map((map) => map[row * shown.width + column]);
    const name = (id) => id === VOID ? "void" : classes[id].name;
    readout.textContent = `target ${name(is)}, prediction ${name(seen)}${is === VOID ? " (not scored)" : is === seen ? "" : " (wrong)"}`;
  }

  const pointers = new Map();
  stage.addEventListener("pointerdown", (event) => {
    if (event.target.tagName !== "CANVAS" || event.button) return;
    pointers.set(event.pointerId, event);
    if (state.zoom > 1 || state.view === "slider") stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    readPixel(event);
    const last = pointers.get(event.pointerId);
    if (!last || !shown) return;
    const canvas = stage.querySelector("canvas"), box = canvas.getBoundingClientRect();
    const spread = () => Math.hypot(...["clientX", "clientY"].map((key) => [...pointers.values()].reduce((sum, one, number) => sum + (number ? 1 : -1) * one[key], 0)));
    const before = pointers.size === 2 ? spread() : 0;
    pointers.set(event.pointerId, event);
    if (pointers.size === 2) {
      if (before > 0) zoomTo(state.zoom * spread() / before);
    } else if (state.view === "slider" && (state.zoom === 1 || Math.abs((last.clientX - box.left) / box.width - state.split) < 0.06)) {
      state.split = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
      update();
    } else if (state.zoom > 1) {
      zoomTo(state.zoom, state.x - (event.clientX - last.clientX) / box.width / state.zoom,
             state.y - (event.clientY - last.clientY) / box.height / state.zoom);
    }
  });
  for (const name of ["pointerup", "pointercancel", "pointerleave"]) stage.addEventListener(name, (event) => pointers.delete(event.pointerId));
  stage.addEventListener("pointerleave", () => { readout.textContent = ""; });
  stage.addEventListener("dblclick", (event) => {
    if (event.target.tagName === "CANVAS") zoomTo(state.zoom > 1 ? 1 : 4, ...locate(event, event.target));
  });
  stage.addEventListener("wheel", (event) => {  // with Ctrl, as a pinch on a touchpad: else the page scrolls
    if (!event.ctrlKey || event.target.tagName !== "CANVAS") return;
    event.preventDefault();
    zoomTo(state.zoom * Math.exp(-event.deltaY / 200), ...(state.zoom === 1 ? locate(event, event.target) : []));
  }, {passive: false});

  const change = (key, by, most) => {
    state[key] = Math.min(Math.max(state[key] + by, 0), most);
    update();
  };
  const pan = (x, y) => zoomTo(state.zoom, state.x + x / state.zoom, state.y + y / state.zoom);
  const KEYS = {
    ArrowRight: () => load(state.place + 1), ArrowLeft: () => load(state.place - 1),
    1: () => show("input"), 2: () => show("target"), 3: () => show("prediction"), 4: () => show("errors"),
    a: () => show("all"), s: () => show("slider"), "[": () => change("opacity", -0.1, 1), "]": () => change("opacity", 0.1, 1),
    "+": () => zoomTo(1.5 * state.zoom), "=": () => zoomTo(1.5 * state.zoom), "-": () => zoomTo(state.zoom / 1.5), 0: () => zoomTo(1),
    c: () => { state.only.clear(); filter(); },
  };
  const PANS = {ArrowRight: [0.1, 0], ArrowLeft: [-0.1, 0], ArrowDown: [0, 0.1], ArrowUp: [0, -0.1]};
  viewer.addEventListener("keydown", (event) => {
    if (!shown || event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT"].includes(event.target.tagName)) return;
    const pressed = event.shiftKey && PANS[event.key] ? () => pan(...PANS[event.key]) : KEYS[event.key];
    if (!pressed) return;
    event.preventDefault();
    pressed();
  });

  for (const button of viewer.querySelectorAll("[data-show]")) button.addEventListener("click", () => show(button.dataset.show));
  for (const button of viewer.querySelectorAll("[data-key]")) button.addEventListener("click", () => KEYS[button.dataset.key]());
  opacity.addEventListener("input", () => { state.opacity = Number(opacity.value); update(); });
  split.addEventListener("input", () => { state.split = Number(split.value); update(); });
  for (const select of viewer.querySelectorAll("select")) select.addEventListener("change", update);

  const thumbs = figures.map((figure, place) => {
    const button = document.createElement("button"), picture = document.createElement("img"), text = document.createElement("span");
    button.type = "button";
    picture.src = figure.querySelector("img").src;
    picture.alt = "";
    text.textContent = figure.dataset.short;
    button.append(picture, text);
    button.title = figure.querySelector("figcaption").textContent;
    button.addEventListener("click", () => load(place));
    $(".thumbs").append(button);
    return button;
  });
  new ResizeObserver(() => shown && update()).observe(stage);
  viewer.classList.add("ready");
  load(0);
}
