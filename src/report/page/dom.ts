/** Makes elements. Text is always inserted as text, so names in a run cannot become elements. */

type Child = Node | string | null | readonly Child[];

type Properties = Readonly<Record<string, string | number | boolean | ((event: Event) => void)>>;

/** Makes an element. A function listens to the event of its name; `true` is an attribute without a value, and `false` none. */
export function h(tag: string, properties: Properties = {}, ...children: readonly Child[]): HTMLElement {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties))
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== false) element.setAttribute(name, value === true ? "" : String(value));
  append(element, children);
  return element;
}

function append(element: HTMLElement, children: readonly Child[]): void {
  for (const child of children)
    if (child === null) continue;
    else if (typeof child === "string" || child instanceof Node) element.append(child);
    else append(element, child);
}

/** A section with a heading that links can refer to. */
export function section(id: string, title: string, ...children: readonly Child[]): HTMLElement {
  return h(
    "section",
    { id, "aria-labelledby": `${id}-title` },
    h("h2", { id: `${id}-title` }, title),
    ...children,
  );
}
