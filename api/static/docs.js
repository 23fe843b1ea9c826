// Shows openapi.json to people. Swagger's own page would come from a foreign host.

function make(tag, text, ...children) {
  const element = document.createElement(tag);
  // Descriptions hold `code` between backticks.
  (text ?? "").split("`").forEach((piece, index) => {
    if (!piece) return;
    if (index % 2) element.append(Object.assign(document.createElement("code"), { textContent: piece }));
    else element.append(piece);
  });
  element.append(...children);
  return element;
}

function table(head, rows) {
  const body = rows.map((row) => make("tr", "", ...row.map((cell) => make("td", cell))));
  const wide = make("div", "", make("table", "", make("tr", "", ...head.map((cell) => make("th", cell))), ...body));
  wide.className = "wide";
  return wide;
}

const nameOf = (reference) => reference.split("/").at(-1);

function typeOf(schema) {
  if (schema.$ref) return nameOf(schema.$ref);
  if (schema.anyOf ?? schema.oneOf) return (schema.anyOf ?? schema.oneOf).map(typeOf).join(" or ");
  if (schema.enum) return schema.enum.join(", ");
  if (schema.const) return schema.const;
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  if (schema.format === "binary") return "bytes";
  const bounds = [schema.minimum, schema.maximum].map((bound) => bound ?? "");
  return bounds.some((bound) => bound !== "") ? `${schema.type} ${bounds.join("–")}` : schema.type ?? "anything";
}

function route(method, path, operation) {
  const title = make("h2", `\`${method.toUpperCase()}\` \`${path}\` ${operation.summary}`);
  const section = make("section", "", title);
  const [, ...rest] = (operation.description ?? "").split("\n\n");
  section.append(make("p", rest.length ? operation.description.replace("\n\n", " ") : operation.description));
  if (operation.parameters) {
    const rows = operation.parameters.map((p) => [`\`${p.name}\``, p.in, typeOf(p.schema), p.description ?? ""]);
    section.append(make("h3", "Parameters"), table(["name", "in", "type", "meaning"], rows));
  }
  if (operation.requestBody) {
    const rows = Object.entries(operation.requestBody.content).map(([type, { schema }]) => [
      `\`${type}\``,
      schema.properties ? Object.entries(schema.properties).map(([n, s]) => `\`${n}\`: ${typeOf(s)}`).join(", ") : typeOf(schema),
    ]);
    section.append(make("h3", "Body"), table(["content type", "content"], rows));
  }
  const rows = Object.entries(operation.responses).map(([status, response]) => [
    status,
    Object.entries(response.content ?? {}).map(([type, { schema }]) => `\`${type}\` ${typeOf(schema ?? {})}`).join(", "),
    response.description,
  ]);
  section.append(make("h3", "Answers"), table(["status", "content", ""], rows));
  return section;
}

function schema(name, { description, properties, enum: values }) {
  const section = make("section", "", make("h2", name), make("p", description));
  section.id = name;
  if (values) section.append(make("p", values.map((value) => `\`${value}\``).join(", ")));
  const rows = Object.entries(properties ?? {}).map(([field, s]) => [`\`${field}\``, typeOf(s), s.description ?? ""]);
  if (rows.length) section.append(table(["field", "type", "meaning and unit"], rows));
  return section;
}

const response = await fetch("openapi.json");
const { info, paths, components } = await response.json();
document.getElementById("about").textContent = `Version ${info.version}. ${info.description}`;
document.getElementById("routes").append(
  ...Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => route(method, path, operation))),
  ...Object.entries(components.schemas).map(([name, definition]) => schema(name, definition)),
);
