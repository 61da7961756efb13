// Draws every plot in the colours and the width of the page, again when either changes.
const dark = matchMedia("(prefers-color-scheme: dark)"), narrow = matchMedia("(max-width: 640px)");
function draw() {
  const ink = dark.matches ? "#c9d1d9" : "#24292f", grid = dark.matches ? "#30363d" : "#e3e6ea";
  for (const plot of plots) {
    const layout = structuredClone(plot.layout);
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = { color: ink, family: "system-ui, sans-serif", size: narrow.matches ? 10 : 12 };
    if (narrow.matches) layout.margin = { l: 48, r: 6, t: 6, b: 36 };
    for (const key in layout)
      if (/^[xy]axis/.test(key)) {
        Object.assign(layout[key], { gridcolor: grid, zerolinecolor: dark.matches ? "#6e7681" : "#8c959f" });
        if (narrow.matches && /^x/.test(key)) layout[key].nticks = 5;
      }
    Plotly.react(plot.id, plot.data, layout, { displayModeBar: false, responsive: true, scrollZoom: false });
  }
}
draw();
dark.addEventListener("change", draw);
narrow.addEventListener("change", draw);
