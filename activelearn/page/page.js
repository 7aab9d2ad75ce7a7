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
    const svg = figure.querySelector("svg");
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
  const root = document.documentElement;
  const bar = document.querySelector("nav div");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  if (bar) bar.append(make("light / dark", "change between light and dark", () => { root.dataset.theme = isDark() ? "light" : "dark"; }));
})();
