"use strict";
(() => {
  const make = (name, text, act) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    if (text) button.setAttribute("aria-label", text);
    button.addEventListener("click", act);
    return button;
  };
  const save = (text, kind, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: kind }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const value = (cell) => (cell && cell.dataset.v !== undefined ? cell.dataset.v : cell ? cell.textContent : "");
  const quoted = (text) => (/[",\n\r]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text);
  // A spreadsheet takes what begins like this for a formula.
  const plain = (text) => (/^[=+@\t\r]|^-(?![\d.])/.test(text) ? "'" + text : text);

  for (const table of document.querySelectorAll("table[data-name]")) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    heads.forEach((head, column) => {
      const name = head.textContent;
      head.textContent = "";
      head.append(make(name, "", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((one) => one.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].sort((a, b) => {
          const x = value(a.cells[column]), y = value(b.cells[column]);
          if (x === "" || y === "") return (x === "") - (y === "");
          const both = x !== "" && y !== "" && isFinite(x) && isFinite(y);
          return (both ? Number(x) - Number(y) : x.localeCompare(y)) * (down ? -1 : 1);
        });
        body.append(...rows);
      }));
    });
    const csv = () => [table.tHead.rows[0], ...body.rows]
      .map((row) => [...row.cells].map((cell) => quoted(plain(value(cell)))).join(",")).join("\n") + "\n";
    const get = make("CSV", "download " + table.dataset.name + " as CSV", () => save(csv(), "text/csv", table.dataset.name + ".csv"));
    get.className = "get";
    table.closest(".scroll").before(get);
  }
  for (const figure of document.querySelectorAll("figure")) {
    const svg = figure.querySelector(".picture > svg:not(.bar)");
    if (!svg) continue;
    const get = make("SVG", "download " + figure.dataset.name + " as SVG", () => {
      const copy = svg.cloneNode(true);
      const style = document.createElementNS("http://www.w3.org/2000/svg", "style");
      style.textContent = document.querySelector("style").textContent;
      copy.prepend(style);
      save(new XMLSerializer().serializeToString(copy), "image/svg+xml", figure.dataset.name + ".svg");
    });
    get.className = "get";
    figure.querySelector(".picture").after(get);
  }

  // Structures. What is drawn of one: atoms about the middle of the cell, bonds, edges of the cell, a colour for each.
  const sceneOf = ({ kinds, kind, of, at, bonds: flat, cell, values, scale }) => {
    const middle = [0, 1, 2].map((k) => (cell[0][k] + cell[1][k] + cell[2][k]) / 2);
    const atoms = kind.map((k, i) => [0, 1, 2].map((a) => at[3 * i + a] - middle[a]));
    const top = values ? Math.max(...values, 1e-9) : 1, steps = scale ? scale.length : 1;
    const colours = kind.map((k, i) => values ? scale[Math.min(steps - 1, Math.floor(values[i] / top * steps))] : kinds[k].colour);
    const corners = Array.from({ length: 8 }, (_, k) => [0, 1, 2].map((x) =>
      cell.reduce((sum, row, a) => sum + (k >> a & 1) * row[x], 0) - middle[x]));
    const edges = [];
    for (let k = 0; k < 8; k++) for (let a = 0; a < 3; a++) if (!(k >> a & 1)) edges.push([corners[k], corners[k | 1 << a]]);
    const bonds = Array.from({ length: flat.length / 2 }, (_, k) => [flat[2 * k], flat[2 * k + 1]]);
    const told = (i) => kinds[kind[i]].name + " " + of[i] + (values ? ": " + values[i] + " eV/\u00c5" : "");
    return { atoms, bonds, edges, colours, told, radii: kind.map((k) => 0.55 * kinds[k].r) };
  };
  const paint = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const hex = ([r, g, b]) => "#" + [r, g, b].map((c) => c.toString(16).padStart(2, "0")).join("");

  // By 3Dmol.js, where the browser has WebGL.
  const solid = (canvas, tell) => {
    const box = document.createElement("div");
    for (const name of ["tabindex", "role", "aria-label"]) box.setAttribute(name, canvas.getAttribute(name));
    box.className = "solid";
    canvas.replaceWith(box);
    const viewer = $3Dmol.createViewer(box, { backgroundColor: paint("--card"), disableFog: true, hoverDuration: 50 });
    if (!viewer) { box.replaceWith(canvas); return null; }
    let scene = null, spin = false;
    const dressed = () => {
      viewer.setBackgroundColor(paint("--card"));
      viewer.removeAllShapes();
      for (const [a, b] of scene.edges) {
        viewer.addLine({ start: { x: a[0], y: a[1], z: a[2] }, end: { x: b[0], y: b[1], z: b[2] }, color: paint("--dim") });
      }
      viewer.render();
    };
    const load = (shot) => {
      scene = sceneOf(shot);
      viewer.removeAllModels();
      const mine = scene.atoms.map(() => []);
      for (const [i, j] of scene.bonds) { mine[i].push(j); mine[j].push(i); }
      viewer.addModel().addAtoms(scene.atoms.map(([x, y, z], i) => ({
        elem: shot.kinds[shot.kind[i]].name, x, y, z, serial: i, index: i, bonds: mine[i], bondOrder: mine[i].map(() => 1),
        style: { sphere: { radius: scene.radii[i], color: hex(scene.colours[i]) }, stick: { radius: 0.11, color: hex(scene.colours[i]) } },
      })));
      viewer.setHoverable({}, true, (atom) => tell(scene.told(atom.index)), () => tell(""));
      viewer.zoomTo();
      if (!spin) { viewer.rotate(35, "y"); viewer.rotate(20, "x"); spin = true; }
      dressed();
      viewer.zoomTo();
      viewer.render();
    };
    box.addEventListener("keydown", (event) => {
      const turns = { ArrowLeft: [-9, "y"], ArrowRight: [9, "y"], ArrowUp: [-9, "x"], ArrowDown: [9, "x"] };
      if (event.key in turns) viewer.rotate(...turns[event.key]);
      else if (event.key === "+") viewer.zoom(1.15);
      else if (event.key === "-") viewer.zoom(1 / 1.15);
      else return;
      event.preventDefault();
      viewer.render();
    });
    // A wheel scrolls the page, unless the structure was clicked or Ctrl is down.
    box.addEventListener("wheel", (event) => { if (!event.ctrlKey && document.activeElement !== box) event.stopPropagation(); }, true);
    box.addEventListener("pointerdown", () => box.focus({ preventScroll: true }), true);
    new ResizeObserver(() => { viewer.resize(); viewer.render(); }).observe(box);
    return { load, redraw: dressed };
  };

  // By hand in two dimensions, where it has not: spheres and bonds from the farthest to the nearest.
  const sprites = {};
  const sprite = (colour) => {
    if (sprites[colour]) return sprites[colour];
    const [r, g, b] = colour, face = sprites[colour] = document.createElement("canvas");
    face.width = face.height = 64;
    const pen = face.getContext("2d"), shade = pen.createRadialGradient(24, 22, 3, 32, 32, 31);
    const mixed = (k, to) => `rgb(${[r, g, b].map((c) => Math.round(c + (to - c) * k)).join()})`;
    shade.addColorStop(0, mixed(0.75, 255));
    shade.addColorStop(0.45, mixed(0, 0));
    shade.addColorStop(1, mixed(0.55, 0));
    pen.fillStyle = shade;
    pen.beginPath();
    pen.arc(32, 32, 31, 0, 7);
    pen.fill();
    return face;
  };
  const flat = (canvas, tell) => {
    let scene = null, size = 1, turn = [[1, 0, 0], [0, 1, 0], [0, 0, 1]], zoom = 1, drawn = [];
    const rotated = (v) => turn.map((row) => row[0] * v[0] + row[1] * v[1] + row[2] * v[2]);
    const by = (x, y) => {
      const [cx, sx, cy, sy] = [Math.cos(y), Math.sin(y), Math.cos(x), Math.sin(x)];
      const about = [[cy, 0, sy], [sx * sy, cx, -sx * cy], [-cx * sy, sx, cx * cy]];
      turn = about.map((row) => [0, 1, 2].map((c) => row.reduce((sum, v, k) => sum + v * turn[k][c], 0)));
    };
    const draw = () => {
      const ratio = devicePixelRatio || 1, wide = canvas.clientWidth, high = canvas.clientHeight;
      if (canvas.width !== Math.round(wide * ratio)) { canvas.width = Math.round(wide * ratio); canvas.height = Math.round(high * ratio); }
      const pen = canvas.getContext("2d"), unit = zoom * Math.min(wide, high) / 2 / size;
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.clearRect(0, 0, wide, high);
      const placed = (v) => { const [x, y, z] = rotated(v), near = 4 * size / (4 * size - z); return [wide / 2 + x * unit * near, high / 2 - y * unit * near, z, near]; };
      const line = (a, b) => { pen.beginPath(); pen.moveTo(a[0], a[1]); pen.lineTo(b[0], b[1]); pen.stroke(); };
      pen.strokeStyle = paint("--dim");
      pen.lineWidth = 1;
      for (const [a, b] of scene.edges) line(placed(a), placed(b));
      const places = scene.atoms.map(placed);
      const all = places.map((p, i) => [p[2], i, -1]).concat(scene.bonds.map(([i, j]) => [(places[i][2] + places[j][2]) / 2, i, j]));
      all.sort((a, b) => a[0] - b[0]);
      drawn = [];
      for (const [, i, j] of all) {
        const [x, y, , near] = places[i];
        if (j >= 0) { pen.lineWidth = Math.max(1.5, 0.22 * unit * near); line(places[i], places[j]); continue; }
        const r = scene.radii[i] * unit * near;
        pen.drawImage(sprite(scene.colours[i]), x - r, y - r, 2 * r, 2 * r);
        drawn.push([x, y, r, i]);
      }
    };
    let from = null;
    canvas.addEventListener("pointerdown", (event) => { from = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointerup", () => { from = null; });
    canvas.addEventListener("pointermove", (event) => {
      if (from) {
        by((event.clientX - from[0]) / 120, (event.clientY - from[1]) / 120);
        from = [event.clientX, event.clientY];
        draw();
        return;
      }
      const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
      const hit = drawn.findLast(([ax, ay, r]) => Math.hypot(x - ax, y - ay) < r);
      tell(hit ? scene.told(hit[3]) : "");
    });
    canvas.addEventListener("keydown", (event) => {
      const turns = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] };
      if (event.key in turns) by(...turns[event.key]);
      else if (event.key === "+") zoom *= 1.15;
      else if (event.key === "-") zoom /= 1.15;
      else return;
      event.preventDefault();
      draw();
    });
    by(0.6, 0.35);
    const load = (shot) => {
      scene = sceneOf(shot);
      size = Math.max(...scene.atoms.map((a) => Math.hypot(...a)), 3) + 1.5;
      draw();
    };
    new ResizeObserver(() => scene && draw()).observe(canvas);
    return { load, redraw: draw };
  };
  // Why structures with this number of atoms are drawn in two dimensions; "": they are not. Where the CPU draws for WebGL, 1600
  // atoms take seconds a picture.
  const whyFlat = (n) => {
    try {
      const context = document.createElement("canvas").getContext("webgl2");
      if (!context) return "This browser gives no WebGL 2";
      const info = context.getExtension("WEBGL_debug_renderer_info");
      const renderer = info ? context.getParameter(info.UNMASKED_RENDERER_WEBGL) : "";
      context.getExtension("WEBGL_lose_context")?.loseContext();
      const isSlow = /swiftshader|llvmpipe|softpipe|software|basic render/i.test(renderer);
      return isSlow && n > 300 ? "WebGL has no graphics card here" : "";
    } catch { return "This browser gives no WebGL 2"; }
  };
  const pictures = [], shown = new Map();
  const show = (canvas) => {
    const shots = JSON.parse(canvas.dataset.shots), frame = canvas.parentElement;
    const told = frame.querySelector(".told"), numbers = frame.querySelectorAll(".bar text");
    const tell = (text) => { if (told.textContent !== text) told.textContent = text; };
    const why = window.$3Dmol ? whyFlat(Math.max(...shots.map((shot) => shot.kind.length))) : "";
    const picture = (window.$3Dmol && !why && solid(canvas, tell)) || flat(canvas, tell);
    if (why) told.after(Object.assign(document.createElement("p"), { className: "dim", textContent: why + ": drawn in two dimensions." }));
    const said = document.createElement("p");
    const load = (k) => {
      const shot = shots[k], top = shot.values ? Math.max(...shot.values) : 0;
      picture.load(shot);
      said.textContent = shot.said + ". ";
      for (const kind of shot.values ? [] : shot.kinds) {
        const dot = document.createElement("span");
        dot.className = "dot";
        dot.style.background = hex(kind.colour);
        said.append(dot, kind.name + " ");
      }
      [0, top / 2, top].forEach((value, i) => { if (numbers[i]) numbers[i].textContent = value.toFixed(2); });
    };
    const list = document.createElement("select");
    list.setAttribute("aria-label", "structure");
    shots.forEach((shot, k) => list.add(new Option(shot.name, k)));
    list.addEventListener("change", () => load(list.value));
    frame.prepend(...(shots.length > 1 ? [list, said] : [said]));
    load(0);
    pictures.push(picture);
    shown.set(canvas, () => shots[list.value || 0]);
  };
  const seen = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (entry.isIntersecting) { seen.unobserve(entry.target); show(entry.target); }
  }), { rootMargin: "200px" });
  const structures = [...document.querySelectorAll("canvas[data-shots]")].map((canvas) => [canvas, canvas.parentElement]);
  structures.forEach(([canvas]) => seen.observe(canvas));

  // On paper: in two dimensions, also what was not scrolled to.
  addEventListener("beforeprint", () => structures.forEach(([canvas, frame]) => {
    const paper = document.createElement("canvas");
    paper.className = "paper";
    frame.prepend(paper);
    flat(paper, () => {}).load(shown.has(canvas) ? shown.get(canvas)() : JSON.parse(canvas.dataset.shots)[0]);
  }));
  addEventListener("afterprint", () => document.querySelectorAll("canvas.paper").forEach((paper) => paper.remove()));

  const root = document.documentElement;
  try { // a page that has loaded itself again
    const theme = sessionStorage.getItem("theme");
    if (theme && document.querySelector("meta[http-equiv=refresh]")) root.dataset.theme = theme;
  } catch { /* none is kept */ }
  const bar = document.querySelector("nav div");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const redraw = () => pictures.forEach((picture) => picture.redraw());
  if (bar) bar.append(make("light / dark", "change between light and dark", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { sessionStorage.setItem("theme", root.dataset.theme); } catch { /* a page that forgets it */ }
    redraw();
  }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
})();
