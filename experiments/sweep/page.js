const figure = JSON.parse(document.getElementById("figure").textContent);
Plotly.newPlot("plot", figure.data, figure.layout, { responsive: true, displaylogo: false });

/* A click on a header sorts its table by that column, the next click the other way round. */
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = header.querySelector("button");
    button.addEventListener("click", () => {
      const upwards = header.getAttribute("aria-sort") !== "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", upwards ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value;
      const compare = (a, b) => a - b || a.localeCompare(b);
      const rows = [...table.tBodies[0].rows].sort((a, b) => compare(value(a), value(b)) * (upwards ? 1 : -1));
      table.tBodies[0].append(...rows);
    });
  });
}
