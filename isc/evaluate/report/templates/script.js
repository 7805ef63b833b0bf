(() => {
  // Which pairs are shown, and in what order. What is chosen stands in the address, so that it can be passed on.
  const tools = document.querySelector(".tools"), box = tools.querySelector("input"), status = tools.querySelector("[role=status]");
  const buttons = [...tools.querySelectorAll("button")], sections = [...document.querySelectorAll(".pairs")];
  const kind = tools.querySelector("[data-choose=kind]"), sort = tools.querySelector("[data-choose=sort]");
  const pairs = sections.flatMap(s => [...s.querySelectorAll("[data-pair]")]).map((e, place) => ({
    e, place, home: e.parentElement, text: e.textContent.toLowerCase(), kinds: e.dataset.kinds.split("|"), query: e.dataset.query,
    score: e.dataset.score === "" ? null : Number(e.dataset.score), rank: e.dataset.rank === "" ? Infinity : Number(e.dataset.rank),
    edits: Number(e.dataset.edits),
  }));
  const homes = new Map();
  pairs.forEach(p => homes.set(p.home, [...(homes.get(p.home) || []), p]));
  const last = Number.MAX_VALUE; // pairs without a score come last either way
  const orders = {
    highest: (a, b) => (b.score ?? -last) - (a.score ?? -last),
    lowest: (a, b) => (a.score ?? last) - (b.score ?? last),
    query: (a, b) => (a.query < b.query ? -1 : a.query > b.query ? 1 : 0),
    edits: (a, b) => b.edits - a.edits,
    rank: (a, b) => (a.rank === b.rank ? 0 : b.rank - a.rank),
  };
  let sheet = "", ordered = "";
  const show = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean), edit = kind ? kind.value : "";
    const narrowed = words.length > 0 || edit !== "";
    let shown = 0;
    sections.forEach(s => { s.hidden = sheet !== "" && s.id !== sheet; });
    pairs.forEach(p => {
      p.e.hidden = !(words.every(word => p.text.includes(word)) && (edit === "" || p.kinds.includes(edit)));
      shown += !p.e.hidden && !p.e.closest(".pairs").hidden;
    });
    if (narrowed) document.querySelectorAll(".more").forEach(more => { more.open = !!more.querySelector("[data-pair]:not([hidden])"); });
    if (sort.value !== ordered) {
      ordered = sort.value;
      homes.forEach((list, home) => home.append(...[...list].sort((a, b) => (ordered && orders[ordered](a, b)) || a.place - b.place).map(p => p.e)));
    }
    buttons.forEach(b => b.setAttribute("aria-pressed", String(b.dataset.sheet === sheet)));
    status.textContent = narrowed ? shown + (shown === 1 ? " pair" : " pairs") : "";
  };
  const chosen = () => {
    show();
    const state = new URLSearchParams();
    Object.entries({show: sheet, filter: box.value, edit: kind ? kind.value : "", sort: sort.value}).forEach(([key, value]) => { if (value) state.set(key, value); });
    history.replaceState(null, "", "#" + state);
  };
  const fromAddress = () => {
    if (!location.hash.includes("=")) return;
    const state = new URLSearchParams(location.hash.slice(1)), among = (list, value) => (list.includes(value) ? value : "");
    sheet = among(sections.map(s => s.id), state.get("show"));
    box.value = state.get("filter") || "";
    if (kind) kind.value = among([...kind.options].map(o => o.value), state.get("edit"));
    sort.value = among([...sort.options].map(o => o.value), state.get("sort"));
    show();
  };
  if (pairs.length) {
    buttons.forEach(b => b.addEventListener("click", () => { sheet = b.dataset.sheet; chosen(); }));
    document.querySelectorAll("a[href^='#']").forEach(a => a.addEventListener("click", () => { sheet = ""; show(); }));
    box.addEventListener("input", chosen);
    tools.querySelectorAll("select").forEach(s => s.addEventListener("change", chosen));
    addEventListener("hashchange", fromAddress);
    tools.hidden = false;
    fromAddress();
  }

  // Columns that sort: numbers from the greatest, names from A; once more turns it round. A total stays first.
  document.querySelectorAll("table[data-sortable]").forEach(table => {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    const value = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = column > 0 ? head.ariaSort !== "descending" : head.ariaSort === "ascending";
        heads.forEach(other => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].filter(row => !row.classList.contains("total")), sign = down ? -1 : 1;
        const order = column > 0 ? (a, b) => value(a, column) - value(b, column) : (a, b) => value(a, 0).localeCompare(value(b, 0));
        body.append(...rows.sort((a, b) => sign * order(a, b)));
      });
    });
  });

  // A click on a pair shows both pictures large; the arrow keys go on to the next pair that is shown.
  const dialog = document.querySelector("dialog"), openers = [...document.querySelectorAll(".photos[role=button]")];
  const shownOnes = () => openers.filter(o => o.offsetParent !== null);
  let current = null;
  const enlarge = opener => {
    current = opener;
    const pair = opener.closest(".pair");
    dialog.querySelector(".photos").innerHTML = opener.innerHTML;
    dialog.querySelector(".ids").innerHTML = pair.querySelector(".ids").innerHTML;
    if (!dialog.open) dialog.showModal();
  };
  const go = step => { const all = shownOnes(), at = all.indexOf(current); enlarge(all[(at + step + all.length) % all.length]); };
  openers.forEach(opener => {
    opener.addEventListener("click", () => enlarge(opener));
    opener.addEventListener("keydown", event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); enlarge(opener); } });
  });
  const acts = {
    close: () => dialog.close(), previous: () => go(-1), next: () => go(1),
    zoom: button => button.setAttribute("aria-pressed", String(dialog.classList.toggle("zoomed"))),
  };
  dialog.querySelectorAll("button").forEach(button => button.addEventListener("click", () => acts[button.dataset.do](button)));
  dialog.addEventListener("keydown", event => { if (event.key === "ArrowLeft") go(-1); if (event.key === "ArrowRight") go(1); });
  if (innerWidth <= 560) document.querySelectorAll(".fold").forEach(fold => { fold.open = false; });
})();
