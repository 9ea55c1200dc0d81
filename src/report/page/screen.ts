/** The current theme, and what must be redrawn when it or a width changes. */
import { dark, light, type Theme } from "./theme.ts";

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
let printing = false;

export function theme(): Theme {
  return prefersDark.matches && !printing ? dark : light;
}

/** Calls `draw` when the theme changes, which includes printing: paper is light. */
export function onTheme(draw: () => void): void {
  prefersDark.addEventListener("change", draw);
  const print = (now: boolean) => (): void => {
    printing = now;
    draw();
  };
  addEventListener("beforeprint", print(true));
  addEventListener("afterprint", print(false));
}

const resizers = new WeakMap<Element, (width: number) => void>();
const observer = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) resizers.get(target)?.(contentRect.width);
});

/** Calls `resize` when the width of an element changes, until `offWidth`. Replaces an earlier callback. */
export function onWidth(element: Element, resize: (width: number) => void): void {
  resizers.set(element, resize);
  observer.observe(element);
}

export function offWidth(element: Element): void {
  resizers.delete(element);
  observer.unobserve(element);
}
