// A report as a table.

const HEAD = ["", "framework", "twin", "ratio", "target"];

function number(value) {
  return value >= 100 ? Math.round(value).toString() : Number(value.toPrecision(3)).toString();
}

function cell(text, name, kind = "") {
  const cell = document.createElement("td");
  cell.textContent = text;
  if (name && text) cell.dataset.name = name;
  cell.className = kind;
  return cell;
}

function row({ case: title, value, twin_value, unit, ratio, target, met, kind, twin }) {
  const row = document.createElement("tr");
  const judged = met === null ? "" : met ? "met" : "missed";
  // What is no framework against its twin says what else it is.
  const what = kind === "context" ? `${title}; twin: ${twin}` : title;
  row.append(
    cell(what),
    cell(`${number(value)} ${unit}`, HEAD[1]),
    cell(`${number(twin_value)} ${unit}`, HEAD[2]),
    cell(ratio.toFixed(2), HEAD[3], `ratio ${judged}`),
    cell(target === null ? "" : `≥ ${target.toFixed(2)}`, HEAD[4]),
  );
  return row;
}

export function fill(table, figures) {
  const [head, names, body] = ["thead", "tr", "tbody"].map((name) => document.createElement(name));
  names.append(
    ...HEAD.map((name) => {
      const cell = document.createElement("th");
      cell.textContent = name;
      return cell;
    }),
  );
  head.append(names);
  body.append(...figures.map(row));
  table.replaceChildren(head, body);
}
