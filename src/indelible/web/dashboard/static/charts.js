// The charts, drawn from the tables beside them: what a screen reader reads and what is drawn are the same numbers.

const color = (name) => {
  const probe = document.createElement("i");
  probe.className = `key ${name}`;
  document.body.append(probe);
  const value = getComputedStyle(probe, "::before").backgroundColor;
  probe.remove();
  return value;
};
const ink = () => getComputedStyle(document.querySelector(".hint, .sub, .fine") ?? document.body).color;
const line = () => getComputedStyle(document.querySelector(".card")).borderTopColor;
const clock = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "short" });
const short = (n) => (n >= 1e6 ? `${+(n / 1e6).toFixed(1)}M` : n >= 1e4 ? `${+(n / 1e3).toFixed(1)}k` : n.toLocaleString("en"));
const redraws = [];

function numbers(table) {
  return [...table.tBodies[0].rows].map((row) => ({
    at: Number(row.dataset.at),
    to: Number(row.dataset.to) + 1,
    values: [...row.cells].slice(1).map((cell) => Number(cell.textContent)),
  }));
}

// Days where they change, the time of day where they do not.
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const time = new Intl.DateTimeFormat("sv-SE", { timeStyle: "short" });
const exact = new Intl.DateTimeFormat("sv-SE", { timeStyle: "medium" });
function dates(_, ticks, __, ___, step) {
  let before = "";
  return ticks.map((tick) => {
    const at = new Date(tick * 1000);
    const today = day.format(at);
    const text = today === before && step < 86400 ? (step < 60 ? exact : time).format(at) : today;
    before = today;
    return text;
  });
}

function axes() {
  const font = `11px ${getComputedStyle(document.body).fontFamily}`;
  const common = { stroke: ink(), font, grid: { stroke: line(), width: 1 }, ticks: { show: false } };
  return [
    { ...common, grid: { show: false }, space: 64, size: 34, values: dates },
    { ...common, size: 46, values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? short(tick) : "")) },
  ];
}

function draw(box, make) {
  const mount = () => {
    box.replaceChildren();
    const plot = make(box.clientWidth, box.clientHeight);
    box._plot = plot;
  };
  mount();
  redraws.push(mount);
  new ResizeObserver(() => {
    if (box._plot && box._plot.width !== box.clientWidth) box._plot.setSize({ width: box.clientWidth, height: box.clientHeight });
  }).observe(box);
}

function overTime(box, table) {
  const rows = numbers(table);
  const names = ["success", "failure", "denied"];
  const stacked = names.map((_, upTo) => rows.map((row) => row.values.slice(0, upTo + 1).reduce((a, b) => a + b, 0)));
  const width = Math.max(rows[0].to - rows[0].at, 1);
  const zoom = (from, to) => {
    const text = (s, end) => new Date(s * 1000 - (end ? 1 : 0)).toISOString().replace(".000Z", "Z");
    const url = new URL(table.dataset.root, location.href);
    url.searchParams.set("q", `since:${text(from, false)} until:${text(to, true)}`);
    location.assign(url);
  };
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", `Events over time, ${rows.length} spans; the table below has the numbers`);
  draw(box, (w, h) => {
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    // From the top of the stack down: each is drawn over the one before.
    const order = [2, 1, 0];
    const plot = new uPlot({
      width: w,
      height: h,
      padding: [10, 18, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false } },
      scales: {
        x: { range: () => [rows[0].at, rows.at(-1).at + width] },
        y: { range: (_, __, max) => [0, Math.max(max * 1.06, 1)] },
      },
      axes: axes(),
      series: [{}, ...order.map((i) => ({
        fill: color(names[i]),
        stroke: color(names[i]),
        width: 0,
        points: { show: false },
        paths: uPlot.paths.bars({ size: [0.82, 40], align: 1 }),
      }))],
      hooks: {
        setSelect: [(u) => {
          if (u.select.width < 4) return;
          const first = rows.findLast((row) => row.at <= u.posToVal(u.select.left, "x")) ?? rows[0];
          const last = rows.findLast((row) => row.at <= u.posToVal(u.select.left + u.select.width, "x")) ?? rows[0];
          zoom(first.at, last.to);
        }],
        setCursor: [(u) => {
          const value = u.cursor.left >= 0 ? u.posToVal(u.cursor.left, "x") : NaN;
          const row = rows.findLast((each) => each.at <= value);
          tip.hidden = !row;
          if (!row) return;
          const title = document.createElement("b");
          title.textContent = clock.format(new Date(row.at * 1000));
          tip.replaceChildren(title, ...names.map((name, i) => {
            const key = document.createElement("span");
            const count = document.createElement("i");
            key.className = `key ${name}`;
            count.textContent = row.values[i].toLocaleString("en");
            key.append(name, count);
            return key;
          }));
          const left = u.bbox.left / devicePixelRatio + u.cursor.left;
          tip.style.left = `${left + 14 + tip.offsetWidth > w ? left - tip.offsetWidth - 10 : left + 14}px`;
        }],
      },
    }, [rows.map((row) => row.at), ...order.map((i) => stacked[i])], box);
    box.append(tip);
    return plot;
  });
  document.querySelector("#chart-hint").hidden = false;
}

function growth(box, table) {
  const rows = numbers(table);
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", `Growth of the log to ${rows.at(-1).values[0].toLocaleString("en")} events; the table below has the numbers`);
  draw(box, (w, h) => new uPlot({
    width: w,
    height: h,
    padding: [10, 18, 0, 0],
    legend: { show: false },
    cursor: { show: false },
    scales: { y: { range: (_, __, max) => [0, Math.max(max * 1.06, 1)] } },
    axes: axes(),
    series: [{}, { stroke: color("success"), width: 2, fill: `color-mix(in srgb, ${color("success")} 18%, transparent)`, points: { show: false } }],
  }, [rows.map((row) => row.at), rows.map((row) => row.values[0])], box));
}

for (const [id, make] of [["#chart", overTime], ["#growth", growth]]) {
  const box = document.querySelector(id);
  if (box) make(box, document.getElementById(box.dataset.table));
}
const redraw = () => redraws.forEach((again) => again());
document.addEventListener("indelible:theme", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
