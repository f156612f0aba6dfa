// What the pages do beyond being pages. They can be read and searched without it. Whatever is put into a page as HTML
// was made, and escaped, by the server's templates.

const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
const say = (text) => { $("#said").textContent = text; };

// --- times: in the browser's own zone; UTC stands in the title ------------------------------------------------------

const clock = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });

function localTimes(within = document) {
  for (const time of $$("time[datetime]:not([data-local])", within)) {
    time.textContent = clock.format(new Date(time.dateTime));
    time.dataset.local = "";
  }
}

// The hours of a week were counted in UTC: turn them by the zone's whole hours.
function localHours() {
  const table = $("#hours");
  const shift = Math.round(-new Date().getTimezoneOffset() / 60);
  if (!table || !shift) return;
  const cells = $$("tbody td", table);
  const was = cells.map((cell) => [cell.dataset.n, cell.className]);
  cells.forEach((cell, at) => {
    const [n, level] = was[(((at - shift) % 168) + 168) % 168];
    cell.className = level;
    cell.dataset.n = cell.title = cell.firstElementChild.textContent = n;
  });
  $("#hours-zone").textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
}

// --- light and dark -------------------------------------------------------------------------------------------------

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function switchTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("indelible-theme", theme);
  } catch {
    // Then it holds for this page.
  }
  document.dispatchEvent(new Event("indelible:theme"));
  say(`${theme} theme`);
}

// --- the list of events ---------------------------------------------------------------------------------------------

let at = -1;

function goTo(step) {
  const rows = $$("tr.event");
  if (!rows.length) return;
  rows[at]?.classList.remove("at");
  at = Math.min(Math.max(at + step, 0), rows.length - 1);
  rows[at].classList.add("at");
  rows[at].scrollIntoView({ block: "nearest" });
  $("a.open", rows[at])?.focus({ preventScroll: true });
}

document.addEventListener("click", (click) => {
  for (const menu of $$("details.menu[open]")) if (!menu.contains(click.target)) menu.open = false;
  const row = click.target.closest("tr.event");
  if (!row || click.target.closest("a, button") || getSelection().toString()) return;
  const link = $("a.open", row);
  if (click.metaKey || click.ctrlKey) open(link.href, "_blank", "noopener");
  else link.click();
});

// --- the keyboard ---------------------------------------------------------------------------------------------------

let prefix = "";
const pages = { o: 0, e: 1, i: 2 };

document.addEventListener("keydown", (press) => {
  if (press.key === "Escape") for (const menu of $$("details.menu[open]")) menu.open = false;
  const typing = press.target.closest("input, textarea, select, dialog[open], [contenteditable]");
  if (typing || press.ctrlKey || press.metaKey || press.altKey || press.defaultPrevented) return;
  const before = prefix;
  prefix = "";
  if (before === "g" && press.key in pages) $$(".tabs a")[pages[press.key]].click();
  else if (press.key === "g") prefix = "g";
  else if (press.key === "j") goTo(1);
  else if (press.key === "k") goTo(-1);
  else if (press.key === "t") switchTheme();
  else if (press.key === "?") $("#help").showModal();
  else if (press.key === "/") {
    const search = $("#q");
    if (search) search.select();
    else $$(".tabs a")[pages.e].click();
  } else return;
  press.preventDefault();
});

// --- completion: the server has written every word; what is begun picks among them ----------------------------------

function completion(input) {
  const list = $("#offers");
  const words = $$("#words option").map((option) => option.value);
  let chosen = -1;

  const begun = () => {
    const before = input.value.slice(0, input.selectionStart);
    const start = /(?:[A-Za-z_]+:)?(?:"(?:[^"\\]|\\.)*"?|\S*)$/.exec(before).index;
    return { start, text: before.slice(start) };
  };
  const close = () => {
    list.hidden = true;
    chosen = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const choose = (index) => {
    chosen = index;
    [...list.children].forEach((item, i) => item.setAttribute("aria-selected", String(i === index)));
    list.children[index].scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", list.children[index].id);
  };
  const take = (word) => {
    const { start } = begun();
    const rest = input.value.slice(input.selectionStart);
    const put = word.endsWith(":") ? word : `${word} `;
    input.value = input.value.slice(0, start) + put + rest.trimStart();
    input.setSelectionRange(start + put.length, start + put.length);
    offer();
  };
  const offer = () => {
    const { text } = begun();
    const low = text.toLowerCase();
    const fits = words.filter((word) => {
      const w = word.toLowerCase();
      // Keys alone while there is no colon; then the values of that key.
      return w !== low && (low.includes(":") ? w.startsWith(low) || w.startsWith(low.replace(":", ':"')) : w.endsWith(":") && w.startsWith(low));
    }).slice(0, 12);
    if (!fits.length || document.activeElement !== input) return close();
    list.replaceChildren(...fits.map((word, i) => {
      const item = document.createElement("li");
      item.id = `offer-${i}`;
      item.role = "option";
      item.textContent = word;
      item.setAttribute("aria-selected", "false");
      item.addEventListener("mousedown", (press) => {
        press.preventDefault();
        take(word);
      });
      return item;
    }));
    chosen = -1;
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
  };
  input.addEventListener("input", offer);
  input.addEventListener("focus", offer);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (press) => {
    const count = list.hidden ? 0 : list.children.length;
    if (press.key === "Escape") {
      if (count) close();
      else input.blur();
    } else if (press.key === "ArrowDown" && count) choose((chosen + 1) % count);
    else if (press.key === "ArrowUp" && count) choose((chosen + count - 1) % count);
    else if ((press.key === "Enter" || press.key === "Tab") && count && chosen >= 0) take(list.children[chosen].textContent);
    else return;
    press.preventDefault();
  });
}

// --- live events ----------------------------------------------------------------------------------------------------

function live(button) {
  const rows = $("#rows");
  const most = 500;
  let source = null;

  const stop = (why) => {
    source?.close();
    source = null;
    button.setAttribute("aria-pressed", "false");
    say(why);
  };
  // More has come than a page should be sent in one piece, or there was no list yet: begin again from the newest.
  const again = () => {
    sessionStorage.setItem("indelible-live", location.href);
    location.reload();
  };
  const add = (message) => {
    if (rows.closest("table").hidden) return again();
    const part = document.createElement("template");
    part.innerHTML = message.data;
    for (const known of $$("tr", part.content)) if (document.getElementById(known.id)) known.remove();
    const fresh = $$("tr", part.content);
    localTimes(part.content);
    for (const row of fresh) row.classList.add("fresh");
    if (at >= 0) at += fresh.length;
    rows.prepend(part.content);
    for (const old of $$("tr.event", rows).slice(most)) old.remove();
    if (fresh.length) say(`${fresh.length} new`);
  };
  const start = () => {
    source = new EventSource(`${button.dataset.href}${button.dataset.href.includes("?") ? "&" : "?"}after=${rows.dataset.size}`);
    source.addEventListener("rows", add);
    source.addEventListener("behind", again);
    source.addEventListener("error", () => {
      if (source?.readyState === EventSource.CLOSED) stop("live events ended");
    });
    button.setAttribute("aria-pressed", "true");
    say("live events are on");
  };
  button.hidden = false;
  button.addEventListener("click", () => (source ? stop("live events are off") : start()));
  if (sessionStorage.getItem("indelible-live") === location.href) start();
  sessionStorage.removeItem("indelible-live");
  addEventListener("pagehide", () => source?.close());
}

// --- a verification, line by line -----------------------------------------------------------------------------------

async function verify(form) {
  const button = $("button", form);
  const bar = $("#verify-progress");
  const said = $("#verify-said");
  const report = $("#verify-report");
  const show = (told) => {
    if ("html" in told) {
      report.innerHTML = told.html;
      localTimes(report);
    } else {
      bar.max = told.total || 1;
      bar.value = told.done;
      said.textContent = `${told.done.toLocaleString("en")} of ${told.total.toLocaleString("en")} events`;
    }
  };
  button.disabled = true;
  bar.removeAttribute("value");
  bar.hidden = false;
  said.textContent = "Starting";
  report.replaceChildren();
  try {
    const answer = await fetch(form.action, { method: "POST", headers: { Accept: "application/x-ndjson" } });
    if (!answer.ok) throw new Error(`the server answered with ${answer.status}`);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) show(JSON.parse(line));
    }
    said.textContent = "";
  } catch (error) {
    said.textContent = `It did not finish: ${error.message}`;
  }
  bar.hidden = true;
  button.disabled = false;
}

// --- begin ----------------------------------------------------------------------------------------------------------

localTimes();
localHours();
for (const [id, act] of [["#theme", switchTheme], ["#help-open", () => $("#help").showModal()]]) {
  $(id).hidden = false;
  $(id).addEventListener("click", act);
}
if ($("#q")) completion($("#q"));
if ($("#live")) live($("#live"));
$("#verify")?.addEventListener("submit", (submit) => {
  submit.preventDefault();
  verify(submit.target);
});
if (matchMedia("(width < 900px)").matches) for (const facets of $$(".facets details")) facets.open = false;
// Where further rows were asked for and something else came, the list stays as it is.
const refuse = (button, why) => {
  button.textContent = `${why}. Try again`;
  say(why);
};
document.addEventListener("htmx:before:response", (event) => {
  if (!event.detail.ctx.response.raw.redirected) return;
  // To a page for signing in, say: that is for the whole page.
  event.preventDefault();
  location.reload();
});
document.addEventListener("htmx:response:error", (event) => {
  refuse(event.target, `The server answered with ${event.detail.ctx.response.status}`);
});
document.addEventListener("htmx:error", (event) => refuse(event.target, "The server did not answer"));
document.addEventListener("htmx:after:swap", () => {
  localTimes();
  say("more events are shown");
});
