/** Making elements. Text is only ever text: nothing that a run is named can become an element. */

type Child = Node | string | null | readonly Child[];

type Properties = Readonly<Record<string, string | number | boolean | ((event: Event) => void)>>;

/** An element. Functions listen to the event of their name, `true` is an attribute without a value, `false` none. */
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

/** A section with a heading that links can name. */
export function section(id: string, title: string, ...children: readonly Child[]): HTMLElement {
  return h(
    "section",
    { id, "aria-labelledby": `${id}-title` },
    h("h2", { id: `${id}-title` }, title),
    ...children,
  );
}
