// The page's script: uploads, live results, keys, and the comparison of two pictures. No build step, no dependency
// beside htmx, which swaps the fragments that the service renders.

const csrf = document.querySelector("meta[name=csrf]").content;
const headers = csrf ? { "X-CSRF-Token": csrf } : {};
const status = document.getElementById("status");

// ---- uploads: each file is sent by itself, so that one that fails costs no other
const drop = document.getElementById("drop");
if (drop) {
  const arrived = document.getElementById("arrived");
  const say = (text) => {
    const line = document.createElement("p");
    line.textContent = text;
    arrived.prepend(line);
    return line;
  };
  const upload = async (file) => {
    const name = file.name || "picture";
    const line = say(drop.dataset.uploading.replace("%s", name));
    const body = new FormData();
    body.append("files", file, name);
    try {
      const answer = await fetch("/api/images", { method: "POST", body, headers });
      const said = await answer.json();
      if (!answer.ok) throw new Error(said.detail);
      line.remove();
      follow(said.images[0].id);
    } catch (error) {
      line.textContent = drop.dataset.failed.replace("%s", name).replace("%r", error.message);
      line.className = "bad";
    }
  };
  const follow = (id) => {
    const place = document.createElement("div");
    arrived.prepend(place);
    const source = new EventSource(`/api/events?image=${id}&after=0`);
    let waiting = false;
    const show = async () => {
      if (waiting) return;
      waiting = true;
      await new Promise((done) => setTimeout(done, 50));
      waiting = false;
      const answer = await fetch(`/ui/images/${id}/results`, { headers });
      if (!answer.ok) return;
      place.innerHTML = await answer.text();
      if (place.querySelector("[data-open='0']")) source.close();
    };
    for (const kind of ["received", "answered", "failed"]) source.addEventListener(kind, show);
  };
  const takeAll = (files) => [...files].filter((one) => one.type.startsWith("image/")).forEach(upload);
  document.getElementById("files").addEventListener("change", (event) => { takeAll(event.target.files); event.target.value = ""; });
  document.addEventListener("paste", (event) => takeAll(event.clipboardData.files));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") takeAll(event.dataTransfer.files);
    });
  }
}

// ---- captions: a key answers the first question that has no answer; after the last one Enter saves
const ANSWERS = { y: "accept", n: "reject", u: "unsure" };
const answer = (key) => {
  const open = [...document.querySelectorAll("form.rate [data-question]")].filter((one) => !one.querySelector(":checked"));
  if (!(key in ANSWERS) || !open.length) return false;
  const option = open[0].querySelector(`[value=${ANSWERS[key]}]`);
  option.checked = true;
  (open.length > 1 ? option : document.querySelector("form.rate button")).focus();
  return true;
};

// ---- keys: one decision a key press; not while a text is typed, and not with Ctrl, Alt or Meta
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  if (event.target.closest("input:not([type=checkbox], [type=radio], [type=range]), select, textarea")) return;
  const key = event.key === "=" ? "+" : event.key.toLowerCase();
  if (answer(key)) { event.preventDefault(); return; }
  const button = [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === key && !one.disabled);
  if (button) { event.preventDefault(); button.click(); }
});

// ---- the comparison: side by side, flickering, or with a swipe; the parts that both show lie on each other
let flickering = 0;
const viewer = () => document.querySelector(".viewer");
const box = (figure) => {
  const shape = figure.querySelector("polygon");
  if (!shape) return [0, 0, 1, 1];
  const points = shape.getAttribute("points").split(" ").map((one) => one.split(",").map((value) => value / 100));
  const xs = points.map((one) => one[0]), ys = points.map((one) => one[1]);
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs) - Math.min(...xs) || 1, Math.max(...ys) - Math.min(...ys) || 1];
};
const place = (image, [x, y, w, h], width, height, flip) => {
  Object.assign(image.style, { width: `${width / w}px`, height: `${height / h}px`, left: `${-x * width / w}px`,
    top: `${-y * height / h}px`, transformOrigin: `${(x + w / 2) * width / w}px 50%`, transform: flip ? "scaleX(-1)" : "" });
};
const fit = () => { // small pictures are enlarged too: what differs should be seen
  const zoom = Number(viewer()?.dataset.zoom || 1);
  for (const image of document.querySelectorAll(".big .frame img")) {
    const size = () => {
      const room = Math.min(image.closest("figure").clientWidth, innerHeight * 0.62 * image.naturalWidth / image.naturalHeight);
      Object.assign(image.style, { width: `${room * zoom}px`, maxWidth: "none", maxHeight: "none" });
    };
    if (image.complete) size();
    else image.addEventListener("load", size, { once: true });
  }
};
fit();
const show = (how) => {
  const one = viewer();
  if (!one) return;
  clearInterval(flickering);
  one.querySelectorAll("[data-show]").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.show === how)));
  one.querySelector(".stage")?.remove();
  const pair = one.querySelector(".pair");
  pair.hidden = how !== "side";
  one.querySelector(".swipe-at").hidden = how !== "swipe";
  if (how === "side") { pair.removeAttribute("hidden"); return; }
  const figures = [...pair.querySelectorAll("figure")];
  const boxes = figures.map(box);
  const first = figures[0].querySelector("img");
  const zoom = Number(one.dataset.zoom || 1);
  const ratio = (first.naturalWidth * boxes[0][2]) / (first.naturalHeight * boxes[0][3]) || 1;
  const room = Math.min(one.clientWidth, innerHeight * 0.62 * ratio);
  const width = room * zoom, height = width / ratio;
  const stage = document.createElement("div");
  stage.className = "stage";
  Object.assign(stage.style, { width: `${width}px`, height: `${height}px` });
  const images = figures.map((figure, at) => {
    const image = figure.querySelector("img").cloneNode();
    image.removeAttribute("width"); image.removeAttribute("height");
    place(image, boxes[at], width, height, at === 1 && one.dataset.mirrored === "yes");
    const layer = document.createElement("div");
    Object.assign(layer.style, { position: "absolute", inset: "0", overflow: "hidden" });
    layer.append(image);
    stage.append(layer);
    return layer;
  });
  one.append(stage);
  if (how === "flicker") {
    flickering = setInterval(() => { images[1].hidden = !images[1].hidden; }, 500);
  } else {
    const range = one.querySelector(".swipe-at input");
    const cut = () => { images[1].style.clipPath = `inset(0 0 0 ${range.value}%)`; };
    range.oninput = cut;
    stage.onpointermove = (event) => { range.value = 100 * event.offsetX / stage.clientWidth; cut(); };
    cut();
  }
};
document.addEventListener("click", (event) => {
  const chosen = event.target.closest("[data-show]");
  if (chosen) show(chosen.dataset.show);
  const zoomed = event.target.closest("[data-zoom]");
  if (zoomed && viewer()) {
    const one = viewer();
    one.dataset.zoom = Math.min(8, Math.max(0.5, Number(one.dataset.zoom || 1) * (zoomed.dataset.zoom === "in" ? 1.5 : 1 / 1.5)));
    const how = one.querySelector("[aria-pressed=true]").dataset.show;
    if (how === "side") fit();
    else show(how);
  }
  if (event.target.id === "choose-all") document.querySelectorAll("#grid [name=chosen]").forEach((one) => { one.checked = event.target.checked; });
});
document.addEventListener("htmx:afterSwap", () => { clearInterval(flickering); fit(); tellTimes(); document.getElementById("question")?.focus(); });

// ---- a service that is away is said, and the decision is not lost: the card stays until it is answered
for (const kind of ["htmx:sendError", "htmx:responseError"]) document.addEventListener(kind, () => { status.textContent = status.dataset.offline; });
document.addEventListener("htmx:afterOnLoad", () => { status.textContent = ""; });
document.getElementById("logout")?.addEventListener("click", async () => { await fetch("/logout", { method: "POST", headers, redirect: "manual" }); location.href = "/login"; });
const tellTimes = () => {
  for (const one of document.querySelectorAll("time[data-at]")) {
    const at = new Date(1000 * one.dataset.at);
    one.dateTime = at.toISOString();
    one.textContent = at.toLocaleString();
  }
};
tellTimes();
