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
    const svg = figure.querySelector(".picture > svg");
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

  // A structure: spheres and bonds from the farthest to the nearest, in a plain two-dimensional canvas.
  const sprite = ([r, g, b]) => {
    const face = document.createElement("canvas");
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
  const show = (canvas) => {
    const { kinds, kind, at, cell, values } = JSON.parse(canvas.dataset.atoms);
    const n = kind.length, middle = [0, 1, 2].map((k) => (cell[0][k] + cell[1][k] + cell[2][k]) / 2);
    const atoms = kind.map((k, i) => [0, 1, 2].map((a) => at[3 * i + a] - middle[a]));
    const top = values ? Math.max(...values, 1e-9) : 1, steps = 16;
    const scale = values && Array.from({ length: steps }, (_, k) => sprite([225 - k * 3, 222 - k * 11, 215 - k * 12]));
    const faces = kinds.map((one) => sprite(one.colour));
    const size = Math.max(...atoms.map((a) => Math.hypot(...a)), 3) + 1.5;
    const bonds = [];
    for (let i = 0; i < n && n <= 3000; i++) {
      for (let j = 0; j < i; j++) {
        const a = kinds[kind[i]], b = kinds[kind[j]], most = 1.2 * (a.r + b.r);
        const dx = atoms[i][0] - atoms[j][0];
        if (!a.bonds || !b.bonds || Math.abs(dx) > most) continue;
        if (Math.hypot(dx, atoms[i][1] - atoms[j][1], atoms[i][2] - atoms[j][2]) < most) bonds.push([i, j]);
      }
    }
    const edges = [];
    for (let k = 0; k < 8; k++) for (let a = 0; a < 3; a++) if (!(k >> a & 1)) edges.push([k, k | 1 << a]);
    const corners = Array.from({ length: 8 }, (_, k) => [0, 1, 2].map((x) =>
      cell.reduce((sum, row, a) => sum + (k >> a & 1) * row[x], 0) - middle[x]));
    let turn = [[1, 0, 0], [0, 1, 0], [0, 0, 1]], zoom = 1, drawn = [];
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
      const colours = getComputedStyle(document.documentElement);
      pen.strokeStyle = colours.getPropertyValue("--dim");
      pen.lineWidth = 1;
      const boxed = corners.map(placed);
      for (const [a, b] of edges) { pen.beginPath(); pen.moveTo(boxed[a][0], boxed[a][1]); pen.lineTo(boxed[b][0], boxed[b][1]); pen.stroke(); }
      const places = atoms.map(placed);
      const all = places.map((p, i) => [p[2], i, -1]).concat(bonds.map(([i, j]) => [(places[i][2] + places[j][2]) / 2, i, j]));
      all.sort((a, b) => a[0] - b[0]);
      drawn = [];
      for (const [, i, j] of all) {
        const [x, y, , near] = places[i];
        if (j >= 0) {
          pen.lineWidth = Math.max(1.5, 0.22 * unit * near);
          pen.beginPath(); pen.moveTo(x, y); pen.lineTo(places[j][0], places[j][1]); pen.stroke();
          continue;
        }
        const r = 0.55 * kinds[kind[i]].r * unit * near;
        const face = values ? scale[Math.min(steps - 1, Math.floor(values[i] / top * steps))] : faces[kind[i]];
        pen.drawImage(face, x - r, y - r, 2 * r, 2 * r);
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
      canvas.title = hit ? kinds[kind[hit[3]]].name + " " + hit[3] + (values ? ": " + values[hit[3]] + " eV/\u00c5" : "") : "";
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
    draw();
    new ResizeObserver(draw).observe(canvas);
    canvas.addEventListener("redraw", draw);
  };
  const seen = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (entry.isIntersecting) { seen.unobserve(entry.target); show(entry.target); }
  }), { rootMargin: "200px" });
  document.querySelectorAll("canvas[data-atoms]").forEach((canvas) => seen.observe(canvas));

  const root = document.documentElement;
  const bar = document.querySelector("nav div");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  if (bar) bar.append(make("light / dark", "change between light and dark", () => { 
    root.dataset.theme = isDark() ? "light" : "dark";
    document.querySelectorAll("canvas").forEach((canvas) => canvas.dispatchEvent(new Event("redraw")));
  }));
})();
