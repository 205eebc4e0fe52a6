"use strict";
// The interactive part of a report: NiiVue panels of one map in its stages, linked, with the values under the pointer.
// Volumes come as gzipped NIfTI in the page. They are decoded here, because values are read from them and because
// missing voxels (NaN) have to be transparent, which NiiVue leaves to the values below the window.
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("report-data").textContent);
  const LABELS = {
    measured: "Measured",
    zerofilled: "Zero-filled",
    mean: "Super-resolved",
    sd: "Standard deviation",
    probability: "P (above threshold)",
  };
  const ORIGINS = { // which part of a panel was measured
    measured: "as measured",
    zerofilled: "interpolated, nothing inferred",
    mean: "measured k-space + inferred detail",
    sd: "by the model",
    probability: "by the model",
  };
  const SLICE_TYPES = { axial: 0, coronal: 1, sagittal: 2, planes: 3 };
  const CROSSHAIR_MM = 0.7;
  const CROSSHAIR_GAP_MM = 12; // the voxels at the crosshair stay in view
  const KEYS = Object.keys(LABELS);
  const NAN_MARK = { 2: 255, 4: -32768 }; // by NIfTI data type, as written by embed.py
  const state = { entry: null, low: 0, high: 1, colours: "viridis", opacity: 1, contour: "none", level: 0, view: "axial",
    placed: false };
  const volumes = new Map();
  const panels = [];
  let lib = null;
  let pending = false;
  let pointerMm = null;

  async function gunzip(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  function inverse(m) { // of an affine [4][4]
    const [[a, b, c, x], [d, e, f, y], [g, h, i, z]] = m;
    const det = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
    const r = [
      [(e * i - f * h) / det, (c * h - b * i) / det, (b * f - c * e) / det],
      [(f * g - d * i) / det, (a * i - c * g) / det, (c * d - a * f) / det],
      [(d * h - e * g) / det, (b * g - a * h) / det, (a * e - b * d) / det],
    ];
    return [...r.map((row) => [...row, -(row[0] * x + row[1] * y + row[2] * z)]), [0, 0, 0, 1]];
  }

  const apply = (m, p) => [0, 1, 2].map((r) => m[r][0] * p[0] + m[r][1] * p[1] + m[r][2] * p[2] + m[r][3]);

  // NIfTI-1, little endian, one volume: https://nifti.nimh.nih.gov/nifti-1
  function decode(buffer) {
    const head = new DataView(buffer);
    const dims = [42, 44, 46].map((at) => head.getInt16(at, true));
    const type = head.getInt16(70, true);
    const slope = head.getFloat32(112, true) || 1;
    const offset = head.getFloat32(108, true);
    const raw = type === 2 ? new Uint8Array(buffer, offset) : new Int16Array(buffer, offset);
    const mark = NAN_MARK[type];
    const values = Float32Array.from(raw, (v) => (v === mark ? NaN : v * slope));
    const affine = [280, 296, 312].map((at) => [0, 4, 8, 12].map((o) => head.getFloat32(at + o, true)));
    affine.push([0, 0, 0, 1]);
    return { dims, values, affine, toVoxel: inverse(affine), header: buffer.slice(0, 352) };
  }

  async function volume(key, text) {
    if (!volumes.has(key)) {
      volumes.set(key, decode(await gunzip(text)));
    }
    return volumes.get(key);
  }

  function at(vol, mm, smooth) {
    const v = apply(vol.toVoxel, mm);
    const [nx, ny, nz] = vol.dims;
    const value = (i, j, k) =>
      i < 0 || j < 0 || k < 0 || i >= nx || j >= ny || k >= nz ? NaN : vol.values[i + nx * (j + ny * k)];
    if (!smooth) {
      return value(...v.map((x) => Math.floor(x + 0.5)));
    }
    let sum = 0;
    for (let corner = 0; corner < 8; corner += 1) {
      let weight = 1;
      const index = v.map((x, axis) => {
        const low = Math.floor(x);
        const up = (corner >> axis) & 1;
        weight *= up ? x - low : 1 - (x - low);
        return low + up;
      });
      if (weight > 0) {
        sum += weight * value(...index);
      }
    }
    return sum;
  }

  // A float image for NiiVue with the header of the packed one.
  function buffer(vol, values) {
    const out = new ArrayBuffer(352 + 4 * values.length);
    new Uint8Array(out).set(new Uint8Array(vol.header));
    const head = new DataView(out);
    head.setInt16(70, 16, true);
    head.setInt16(72, 32, true);
    head.setFloat32(108, 352, true);
    head.setFloat32(112, 1, true);
    head.setFloat32(116, 0, true);
    new Float32Array(out, 352).set(values);
    return out;
  }

  // What is missing lies below the window, where NiiVue draws nothing; what is measured never does.
  function windowed(vol, low, high) {
    const span = high - low;
    return vol.values.map((v) => (Number.isNaN(v) ? low - span : Math.max(v, low + 1e-3 * span)));
  }

  function number(value) {
    return Number.isFinite(value) ? String(Number(value.toPrecision(4))) : "no value";
  }

  // ---- panels

  async function addPanel(key) {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    const frame = document.createElement("div");
    const canvas = document.createElement("canvas");
    const lines = document.createElement("canvas");
    const bar = document.createElement("div");
    frame.className = "frame";
    lines.className = "lines";
    bar.className = "bar";
    canvas.id = `panel-${key}`;
    canvas.setAttribute("role", "img");
    bar.append(document.createElement("span"), document.createElement("i"), document.createElement("span"));
    frame.append(canvas, lines);
    figure.append(caption, frame, bar);
    figure.style.order = String(KEYS.indexOf(key));
    $("panels").append(figure);
    const nv = new lib.Niivue({
      isNearestInterpolation: !$("smooth").checked,
      isRadiologicalConvention: true,
      isColorbar: false,
      dragAndDropEnabled: false,
      show3Dcrosshair: false,
      multiplanarShowRender: 0,
      multiplanarLayout: 0,
      crosshairWidthUnit: "mm",
      crosshairWidth: $("crosshair").checked ? CROSSHAIR_MM : 0,
      crosshairGap: CROSSHAIR_GAP_MM,
      crosshairColor: [1, 1, 1, 0.7],
      backColor: [0.1, 0.1, 0.1, 1],
      logLevel: "error",
      loadingText: "",
      scrollRequiresFocus: false,
      isResizeCanvas: true,
      sliceType: SLICE_TYPES[state.view],
    });
    await nv.attachToCanvas(canvas);
    const panel = { key, figure, caption, canvas, lines, bar, nv };
    const draw = nv.drawScene.bind(nv);
    nv.drawScene = (...args) => {
      const result = draw(...args);
      drawContour(panel);
      return result;
    };
    nv.onLocationChange = () => moved(panel);
    for (const [name, codes] of Object.entries(data.colours)) {
      nv.addColormap(`mrsi-${name}`, colourMap(codes));
    }
    canvas.addEventListener("pointermove", (event) => pointed(panel, event));
    canvas.addEventListener("pointerleave", () => {
      pointerMm = null;
      readOut();
    });
    panels.push(panel);
    const update = nv.updateGLVolume.bind(nv); // one update for both volumes: each one computes gradients of the first
    nv.updateGLVolume = () => {};
    nv.addVolume(await backgroundImage());
    nv.updateGLVolume = update;
  }

  function colourMap(codes) {
    const channel = (at) => Array.from({ length: 256 }, (_, i) => parseInt(codes.slice(6 * i + at, 6 * i + at + 2), 16));
    const alpha = Array(256).fill(255);
    alpha[0] = 0;
    return { R: channel(0), G: channel(2), B: channel(4), A: alpha, I: Array.from({ length: 256 }, (_, i) => i) };
  }

  async function backgroundImage() {
    const vol = await volume("background", data.background);
    return lib.NVImage.new(buffer(vol, vol.values), "background.nii", "gray", 1, null, 0, data.anatomy ? 255 : 1);
  }

  function windowOf(panel) {
    const stage = state.entry.stages[panel.key];
    const own = panel.key === "sd" || panel.key === "probability";
    return own ? [stage.low, stage.high] : [state.low, state.high];
  }

  const coloursOf = (panel) => (panel.key === "sd" || panel.key === "probability" ? "magma" : state.colours);

  async function fill(panel) {
    const entry = state.entry;
    const stage = entry.stages[panel.key];
    panel.figure.hidden = !stage;
    if (!stage) {
      return;
    }
    const vol = await volume(`${entry.name}|${panel.key}`, stage.nifti);
    if (entry !== state.entry) {
      return; // another map was chosen meanwhile
    }
    if (panel.nv.volumes.length < 2) {
      const [low, high] = windowOf(panel);
      panel.nv.addVolume(await lib.NVImage.new(
        buffer(vol, windowed(vol, low, high)), "map.nii", `mrsi-${coloursOf(panel)}`, state.opacity, null, low, high));
    }
    panel.volume = vol;
    const grid = panel.key === "measured" ? data.grid.lr_voxel_mm : data.grid.voxel_mm;
    const size = document.createElement("small");
    size.textContent = `${grid.map((x) => Number(x.toPrecision(3))).join(" \u00d7 ")} mm, ${ORIGINS[panel.key]}`;
    panel.caption.replaceChildren(LABELS[panel.key], size);
    panel.canvas.setAttribute("aria-label", `${entry.name}: ${LABELS[panel.key]}`);
    window_(panel);
  }

  function window_(panel) {
    if (!panel.volume || !state.entry.stages[panel.key] || panel.nv.volumes.length < 2) {
      return;
    }
    const [low, high] = windowOf(panel);
    const image = panel.nv.volumes[1];
    image.img.set(windowed(panel.volume, low, high));
    if (image.colormap !== `mrsi-${coloursOf(panel)}`) {
      image.colormap = `mrsi-${coloursOf(panel)}`; // which resets the window, so it comes first
    }
    image.cal_min = low;
    image.cal_max = high;
    image.opacity = state.opacity;
    panel.nv.refreshLayers(image, 1); // the maps of a panel are on one grid, so only their values change
    panel.nv.drawScene();
    const [left, colours, right] = panel.bar.children;
    left.textContent = number(low);
    colours.className = coloursOf(panel);
    right.textContent = `${number(high)} ${panel.key === "probability" ? "" : state.entry.unit}`;
  }

  // ---- position

  const shown = () => panels.filter((panel) => !panel.figure.hidden);

  function crosshairMm() {
    const nv = shown()[0].nv;
    return Array.from(nv.frac2mm(nv.scene.crosshairPos, 0, true)).slice(0, 3);
  }

  function moveTo(mm) {
    for (const { nv } of shown()) {
      nv.scene.crosshairPos = nv.mm2frac(mm, 0, true);
      nv.drawScene();
    }
    followSlice(mm);
    readOut();
  }

  let moving = false;
  function moved(source) { // the crosshair of one panel was moved: the others follow
    if (moving || source.figure.hidden || !source.volume) {
      return;
    }
    moving = true;
    const mm = Array.from(source.nv.frac2mm(source.nv.scene.crosshairPos, 0, true)).slice(0, 3);
    for (const { nv } of shown()) {
      if (nv !== source.nv) {
        nv.scene.crosshairPos = nv.mm2frac(mm, 0, true);
        nv.scene.pan2Dxyzmm = Array.from(source.nv.scene.pan2Dxyzmm);
        nv.drawScene();
      }
    }
    followSlice(mm);
    readOut();
    moving = false;
  }

  // The array axis that a view's slices follow: axial runs along the one closest to the body's long axis.
  function sliceAxis() {
    const world = { axial: 2, coronal: 1, sagittal: 0, planes: 2 }[state.view];
    const m = data.grid.affine;
    const strength = (axis) => Math.abs(m[world][axis]) / Math.hypot(m[0][axis], m[1][axis], m[2][axis]);
    return [0, 1, 2].reduce((best, axis) => (strength(axis) > strength(best) ? axis : best), 0);
  }

  const gridInverse = inverse(data.grid.affine);

  function followSlice(mm) {
    const axis = sliceAxis();
    const count = data.grid.shape[axis];
    const index = Math.min(count - 1, Math.max(0, Math.floor(apply(gridInverse, mm)[axis] + 0.5)));
    $("slice").max = String(count - 1);
    $("slice").value = String(index);
    $("slice-text").textContent = `${index + 1} of ${count}`;
  }

  function goToSlice(index) {
    const voxel = apply(gridInverse, crosshairMm());
    voxel[sliceAxis()] = index;
    moveTo(apply(data.grid.affine, voxel));
  }

  // ---- values

  function pointed(panel, event) {
    const { nv } = panel;
    const scale = panel.canvas.width / panel.canvas.clientWidth;
    const frac = nv.canvasPos2frac([event.offsetX * scale, event.offsetY * scale]);
    pointerMm = frac[0] < 0 ? null : Array.from(nv.frac2mm(frac, 0, true)).slice(0, 3);
    readOut();
  }

  function side(value, plus, minus) {
    return `${value >= 0 ? plus : minus} ${Math.abs(value).toFixed(1)}`;
  }

  function readOut() {
    if (!state.entry || !shown().length) {
      return;
    }
    const mm = pointerMm || crosshairMm();
    const voxel = apply(gridInverse, mm).map((x) => Math.floor(x + 0.5));
    const unit = state.entry.unit;
    const value = {};
    for (const panel of shown()) {
      value[panel.key] = panel.volume ? at(panel.volume, mm, false) : NaN;
    }
    const spread = "sd" in value && Number.isFinite(value.sd) ? ` \u00b1 ${number(value.sd)}` : "";
    const inside = voxel.every((x, axis) => x >= 0 && x < data.grid.shape[axis]);
    $("place").textContent =
      `${pointerMm ? "pointer" : "crosshair"} at ${side(mm[0], "R", "L")}, ${side(mm[1], "A", "P")}, ` +
      `${side(mm[2], "S", "I")} mm, ` + (inside ? `voxel ${voxel.join(", ")}` : "outside the maps");
    $("value-measured").textContent = "measured" in value ? `${number(value.measured)} ${unit}` : "not in these files";
    $("value-zerofilled").textContent = "zerofilled" in value ? `${number(value.zerofilled)} ${unit}` : "not in these files";
    $("value-mean").textContent =
      Number.isFinite(value.mean) ? `${number(value.mean)}${spread} ${unit}` : "no value (not trusted, or outside)";
    $("value-probability").textContent = "probability" in value ? number(value.probability) : "-";
  }

  // ---- contours: marching squares over a lattice of canvas points, so that every view and zoom is treated alike

  async function contourField() {
    const choice = state.contour;
    if (choice === "none" || !state.entry) {
      return null;
    }
    const load = async (entry, key) => volume(`${entry.name}|${key}`, entry.stages[key].nifti);
    if (choice === "level") {
      return { vol: await load(state.entry, "mean"), level: state.level };
    }
    if (choice === "trusted") {
      return { vol: await load(state.entry, "mean"), level: null };
    }
    const ratio = data.entries.find((entry) => entry.ratio && `hotspot ${entry.name}` === choice);
    const likely = ratio.stages.probability;
    return likely
      ? { vol: await load(ratio, "probability"), level: 0.5 }
      : { vol: await load(ratio, "mean"), level: ratio.threshold };
  }

  let field = null;

  function drawContour(panel) {
    const { canvas, lines, nv } = panel;
    if (lines.width !== canvas.width || lines.height !== canvas.height) {
      lines.width = canvas.width;
      lines.height = canvas.height;
    }
    const pen = lines.getContext("2d");
    pen.clearRect(0, 0, lines.width, lines.height);
    if (!field || panel.figure.hidden || nv.volumes.length < 2) {
      return;
    }
    const path = new Path2D();
    nv.screenSlices.forEach((tile, index) => {
      if (tile.axCorSag <= 2) {
        traceTile(path, nv, tile, index);
      }
    });
    pen.lineWidth = 4;
    pen.strokeStyle = "rgba(0, 0, 0, 0.75)";
    pen.stroke(path);
    pen.lineWidth = 1.8;
    pen.strokeStyle = "#ffffff";
    pen.stroke(path);
  }

  function traceTile(path, nv, tile, index) {
    let [left, top, width, height] = tile.leftTopWidthHeight;
    if (width < 0) {
      left += width;
      width = -width;
    }
    const mm = (x, y) => {
      const frac = nv.screenXY2TextureFrac(x, y, index, false);
      return Array.from(nv.frac2mm(frac, 0, true)).slice(0, 3);
    };
    const [x0, y0, x1, y1] = [left + 0.001 * width, top + 0.001 * height, left + 0.999 * width, top + 0.999 * height];
    const [origin, right, down] = [mm(x0, y0), mm(x1, y0), mm(x0, y1)];
    const step = Math.max(2, width / 220);
    const [nx, ny] = [Math.floor((x1 - x0) / step), Math.floor((y1 - y0) / step)];
    const smooth = $("smooth").checked && field.level !== null;
    const rows = Array.from({ length: ny + 1 }, (_, j) =>
      Float32Array.from({ length: nx + 1 }, (_, i) => {
        const [a, b] = [(i * step) / (x1 - x0), (j * step) / (y1 - y0)];
        const value = at(field.vol, origin.map((o, k) => o + a * (right[k] - o) + b * (down[k] - o)), smooth);
        if (field.level === null) {
          return Number.isNaN(value) ? -1 : 1;
        }
        return Number.isNaN(value) ? -1e30 : value - field.level;
      }));
    const between = (a, b) => (Math.abs(a) > 1e29 || Math.abs(b) > 1e29 ? 0.5 : a / (a - b));
    for (let j = 0; j < ny; j += 1) {
      for (let i = 0; i < nx; i += 1) {
        const [a, b, c, d] = [rows[j][i], rows[j][i + 1], rows[j + 1][i + 1], rows[j + 1][i]];
        const [px, py] = [x0 + i * step, y0 + j * step];
        const cuts = [];
        if (a >= 0 !== b >= 0) cuts.push([px + step * between(a, b), py]);
        if (b >= 0 !== c >= 0) cuts.push([px + step, py + step * between(b, c)]);
        if (c >= 0 !== d >= 0) cuts.push([px + step * (1 - between(c, d)), py + step]);
        if (d >= 0 !== a >= 0) cuts.push([px, py + step * (1 - between(d, a))]);
        for (let n = 0; n + 1 < cuts.length; n += 2) {
          path.moveTo(...cuts[n]);
          path.lineTo(...cuts[n + 1]);
        }
      }
    }
  }

  // ---- controls

  async function choose(name) {
    state.entry = data.entries.find((entry) => entry.name === name);
    const { low, high } = state.entry.stages.mean;
    Object.assign(state, { low, high, level: Number(((low + high) / 2).toPrecision(3)) });
    for (const [id, value] of [["low", low], ["high", high], ["level", state.level]]) {
      $(id).value = String(Number(value.toPrecision(4)));
      $(id).step = String(Number(((high - low) / 50).toPrecision(1)));
    }
    const here = shown().length && state.placed ? crosshairMm() : data.start_mm;
    for (const key of KEYS.filter((one) => one in state.entry.stages)) {
      if (!panels.some((panel) => panel.key === key)) {
        await addPanel(key); // only when it is needed: each panel compiles NiiVue's shaders
      }
    }
    for (const panel of panels) {
      await fill(panel);
    }
    field = await contourField();
    state.placed = true;
    moveTo(here);
  }


  function later() { // many events, one redraw
    if (!pending) {
      pending = true;
      requestAnimationFrame(() => {
        pending = false;
        shown().forEach(window_);
      });
    }
  }

  async function recontour() {
    field = await contourField();
    $("level").disabled = state.contour !== "level";
    shown().forEach(({ nv }) => nv.drawScene());
  }

  function connect() {
    const bind = (id, event, act) => $(id).addEventListener(event, (e) => act(e.target));
    bind("map", "change", (element) => choose(element.value));
    bind("slice", "input", (element) => goToSlice(Number(element.value)));
    for (const id of ["low", "high"]) {
      bind(id, "input", (element) => {
        const value = Number(element.value);
        const [low, high] = id === "low" ? [value, state.high] : [state.low, value];
        if (element.value !== "" && Number.isFinite(value) && low < high) {
          Object.assign(state, { low, high });
          later();
        }
      });
    }
    bind("window-reset", "click", () => {
      const { low, high } = state.entry.stages.mean;
      Object.assign(state, { low, high });
      $("low").value = String(Number(low.toPrecision(4)));
      $("high").value = String(Number(high.toPrecision(4)));
      later();
    });
    bind("colours", "change", (element) => {
      state.colours = element.value;
      later();
    });
    bind("opacity", "input", (element) => {
      state.opacity = Number(element.value) / 100;
      later();
    });
    bind("contour", "change", (element) => {
      state.contour = element.value;
      recontour();
    });
    bind("level", "input", (element) => {
      state.level = Number(element.value);
      recontour();
    });
    bind("smooth", "change", (element) => {
      panels.forEach(({ nv }) => nv.setInterpolation(!element.checked));
    });
    bind("crosshair", "change", (element) => {
      panels.forEach(({ nv }) => {
        nv.opts.crosshairWidth = element.checked ? CROSSHAIR_MM : 0;
        nv.drawScene();
      });
    });
    bind("view", "change", (element) => {
      state.view = element.value;
      panels.forEach(({ nv }) => nv.setSliceType(SLICE_TYPES[state.view]));
      followSlice(crosshairMm());
    });
  }

  async function start() {
    const probe = document.createElement("canvas").getContext("webgl2");
    if (!probe || typeof DecompressionStream === "undefined") {
      throw new Error("This browser offers no WebGL2, so the maps cannot be moved through here");
    }
    probe.getExtension("WEBGL_lose_context")?.loseContext();
    const script = document.createElement("script"); // allowed by its hash in the page's content security policy
    script.textContent = new TextDecoder().decode(await gunzip($("viewer-code").textContent));
    document.head.append(script);
    lib = globalThis.niivue;
    $("viewer").hidden = false; // a canvas needs its size before it is attached
    connect();
    state.opacity = data.anatomy ? 0.75 : 1;
    $("opacity").value = String(100 * state.opacity);
    await choose(data.entries[0].name);
    document.body.dataset.ready = "yes";
  }

  start().catch((error) => {
    $("viewer").hidden = true;
    $("no-viewer").hidden = false;
    $("no-viewer-reason").textContent = `${error.message}. The still pictures below show the same maps.`;
    document.body.dataset.ready = "stills";
  });
})();
