// The page: a picture in, boxes and bars out. No library, no foreign asset, nothing kept.

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.01 ? 1 : 0)}\u00a0%`;

let current = null; // the picture last chosen
let asking = null; // aborts the request in flight
let shownUrl = null;
let stream = null; // of the camera

function say(text, refused = false) {
  $("status").textContent = text;
  $("status").classList.toggle("refused", refused);
}

function make(tag, { className = "", text } = {}, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  element.append(...children);
  return element;
}

function makeSvg(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

async function post(path, accept) {
  const form = new FormData();
  form.append("file", current, "picture");
  const headers = { accept };
  if ($("key").value) headers["x-api-key"] = $("key").value;
  const conf = Number($("conf").value);
  const query = conf ? `?conf=${conf / 100}` : "";
  return fetch(`v1/${path}${query}`, { method: "POST", body: form, headers, signal: asking.signal });
}

async function look(picture) {
  if (!picture) return;
  current = picture;
  asking?.abort();
  const mine = (asking = new AbortController());
  show(picture);
  say("Looking for faces …");
  $("stage").classList.add("busy");
  try {
    const response = await post("detect", "application/json");
    const body = await response.json();
    await $("shown").decode().catch(() => {}); // its width on the screen gives the letters' size
    if (mine !== asking) return;
    if (response.ok) render(body);
    else refuse(response.status, body, response.headers.get("retry-after"));
  } catch (error) {
    if (error.name !== "AbortError") say("The server can’t be reached. Is it running?", true);
  } finally {
    if (mine === asking) $("stage").classList.remove("busy");
  }
}

function show(picture) {
  if (shownUrl) URL.revokeObjectURL(shownUrl);
  shownUrl = URL.createObjectURL(picture);
  $("shown").src = shownUrl;
  $("shown").alt = "The picture you chose";
  $("boxes").replaceChildren();
  $("timing").textContent = "";
  $("picture").hidden = false;
  $("answer").hidden = true;
}

// A format that the browser can't show (HEIC, TIFF): let the server draw it.
async function showDrawn() {
  if (!shownUrl || $("shown").src !== shownUrl) return;
  try {
    const response = await post("annotate", "image/jpeg");
    if (!response.ok) throw new Error("refused");
    const drawn = URL.createObjectURL(await response.blob());
    URL.revokeObjectURL(shownUrl);
    shownUrl = null;
    $("boxes").replaceChildren();
    $("shown").src = drawn;
  } catch {
    $("shown").alt = "This browser can’t show the picture";
  }
}

function refuse(status, problem, retryAfter) {
  if (status === 401) {
    $("key").hidden = $("key-label").hidden = false;
    $("key").focus();
  }
  const detail = problem.detail ?? "The server refused the picture.";
  const sentence = detail.charAt(0).toUpperCase() + detail.slice(1);
  say(retryAfter ? `${sentence}. Try again in ${retryAfter} s.` : `${sentence}.`, true);
}

function render(answer) {
  const { detections, image, timing_ms: timing } = answer;
  const names = detections.map((detection) => detection.emotion).join(", ");
  const faces = detections.length === 1 ? "1 face" : `${detections.length} faces`;
  say(detections.length ? `${faces}: ${names}` : "No face found.");
  $("shown").alt = detections.length ? `Your picture with ${faces}: ${names}` : "Your picture; no face was found";
  $("boxes").replaceChildren();
  if (shownUrl) drawBoxes(detections, image);
  $("faces").replaceChildren(...detections.map(face));
  $("timing").textContent = `${image.width} × ${image.height} px · ${Object.entries(timing)
    .map(([phase, ms]) => `${phase} ${ms.toFixed(1)} ms`)
    .join(" · ")}`;
  $("json").textContent = JSON.stringify(answer, null, 2);
  $("answer").hidden = false;
}

function drawBoxes(detections, image) {
  const svg = $("boxes");
  svg.setAttribute("viewBox", `0 0 ${image.width} ${image.height}`);
  const letter = (13 * image.width) / ($("shown").clientWidth || 600);
  detections.forEach(({ box, emotion }, index) => {
    const group = makeSvg("g", { class: emotion, id: `box-${index}` });
    const place = { x: box.x1, y: box.y1, width: box.x2 - box.x1, height: box.y2 - box.y1 };
    group.append(makeSvg("rect", { ...place, class: "edge" }), makeSvg("rect", place));
    const text = `${index + 1} ${emotion}`;
    const top = box.y1 >= 1.5 * letter ? box.y1 - 1.5 * letter : box.y1;
    const width = 0.62 * letter * (text.length + 1);
    const left = Math.max(Math.min(box.x1, image.width - width), 0);
    group.append(makeSvg("rect", { class: "label", x: left, y: top, width, height: 1.5 * letter }));
    group.append(makeSvg("text", { x: left + 0.4 * letter, y: top + 1.1 * letter, "font-size": letter }, text));
    svg.append(group);
  });
}

function face({ emotion, confidence, probabilities }, index) {
  const bars = make("dl");
  for (const [name, share] of Object.entries(probabilities).sort((a, b) => b[1] - a[1])) {
    const bar = make("span", { className: name });
    bar.style.width = `${100 * share}%`;
    const track = make("dd", { className: "bar" }, bar);
    track.setAttribute("aria-hidden", "true");
    bars.append(make("dt", { text: name }), track, make("dd", { className: "share", text: percent(share) }));
  }
  const title = `Face ${index + 1}: ${emotion}`;
  const sure = make("span", { className: "quiet", text: ` · a face with ${percent(confidence)} confidence` });
  const item = make("li", { className: emotion }, make("h3", { text: title }, sure), bars);
  item.tabIndex = 0;
  const light = (on) => () => $(`box-${index}`)?.classList.toggle("lit", on);
  for (const event of ["pointerenter", "focus"]) item.addEventListener(event, light(true));
  for (const event of ["pointerleave", "blur"]) item.addEventListener(event, light(false));
  return item;
}

function pictureOf(transfer) {
  return [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/") || !file.type);
}

async function startCamera() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
  } catch {
    say("No camera can be used here: there is none, or this page may not use it.", true);
    return;
  }
  $("video").srcObject = stream;
  $("drop").hidden = true;
  $("camera").hidden = false;
  $("shoot").focus();
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  $("video").srcObject = null;
  $("camera").hidden = true;
  $("drop").hidden = false;
  $("photograph").focus();
}

function shoot() {
  const video = $("video");
  if (!video.videoWidth) return;
  const canvas = make("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((picture) => { stopCamera(); look(picture); }, "image/jpeg", 0.92);
}

async function introduce() {
  const headers = $("key").value ? { "x-api-key": $("key").value } : {};
  try {
    const response = await fetch("v1/model", { headers });
    if (response.ok) {
      const { name, version, input_px: side } = await response.json();
      $("model").textContent = `${name} ${version}, looks at ${side} px`;
    } else if (response.status === 401) {
      $("model").textContent = "This server asks for an API key.";
      $("key").hidden = $("key-label").hidden = false;
    } else setTimeout(introduce, 1000);
  } catch {
    $("model").textContent = "The server can’t be reached.";
  }
}

$("pick").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => { look($("file").files[0]); $("file").value = ""; });
$("photograph").addEventListener("click", startCamera);
$("shoot").addEventListener("click", shoot);
$("stop").addEventListener("click", stopCamera);
$("shown").addEventListener("error", showDrawn);
$("options").addEventListener("submit", (event) => { event.preventDefault(); introduce(); look(current); });
$("key").addEventListener("change", () => { introduce(); look(current); });
$("conf").addEventListener("input", () => {
  const text = Number($("conf").value) ? `${$("conf").value} %` : "model’s own";
  $("conf-value").textContent = text;
  $("conf").setAttribute("aria-valuetext", text);
});
$("conf").addEventListener("change", () => look(current));
$("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText($("json").textContent);
  say("Copied.");
});
for (const event of ["dragover", "dragenter"]) {
  document.addEventListener(event, (drag) => { drag.preventDefault(); $("drop").classList.add("over"); });
}
document.addEventListener("dragleave", (drag) => { if (!drag.relatedTarget) $("drop").classList.remove("over"); });
document.addEventListener("drop", (drop) => {
  drop.preventDefault();
  $("drop").classList.remove("over");
  const picture = pictureOf(drop.dataTransfer);
  if (picture) look(picture);
  else say("That is no picture.", true);
});
document.addEventListener("paste", (paste) => {
  const picture = pictureOf(paste.clipboardData);
  if (picture) look(picture);
});
introduce();
