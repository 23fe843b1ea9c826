// Elements and boxes, for a picture as for a camera.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);
export const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.01 ? 1 : 0)}\u00a0%`;

export function make(tag, { className = "", text } = {}, ...children) {
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

// Draws boxes into `svg`, in pixels of the picture, with letters as large on the screen whatever its size;
// `numberOf` gives the text before each emotion.
export function drawBoxes(svg, { detections, image }, numberOf) {
  svg.setAttribute("viewBox", `0 0 ${image.width} ${image.height}`);
  const letter = (13 * image.width) / (svg.clientWidth || 600);
  svg.replaceChildren(...detections.map((detection, index) => {
    const { box, emotion } = detection;
    const group = makeSvg("g", { class: emotion });
    const place = { x: box.x1, y: box.y1, width: box.x2 - box.x1, height: box.y2 - box.y1 };
    group.append(makeSvg("rect", { ...place, class: "edge" }), makeSvg("rect", place));
    const text = `${numberOf(detection, index)} ${emotion}`;
    const top = box.y1 >= 1.5 * letter ? box.y1 - 1.5 * letter : box.y1;
    const width = 0.62 * letter * (text.length + 1);
    const left = Math.max(Math.min(box.x1, image.width - width), 0);
    group.append(makeSvg("rect", { class: "label", x: left, y: top, width, height: 1.5 * letter }));
    group.append(makeSvg("text", { x: left + 0.4 * letter, y: top + 1.1 * letter, "font-size": letter }, text));
    return group;
  }));
}
