for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.key;
      const number = (text) => (text === "" ? Infinity : Number(text));
      const sorted = [...body.rows].sort((a, b) => {
        const [p, q] = [key(a), key(b)];
        const [m, n] = [number(p), number(q)];
        const order = Number.isNaN(m) || Number.isNaN(n) ? p.localeCompare(q) : m === n ? 0 : m - n;
        return up ? order : -order;
      });
      body.append(...sorted);
    });
  });
}
