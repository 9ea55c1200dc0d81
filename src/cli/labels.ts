/** Labels of the text of a run: each domain, the target, and each of several targets. They are written as words only in messages and records. */

/** A part of the text of a run. */
export interface Label {
  readonly kind: "domain" | "target" | "targets";
  /** Name of the domain or target; "" for the single target. */
  readonly name: string;
}

export const domainLabel = (name: string): Label => ({ kind: "domain", name });

/** The label of the single target. */
export const theTarget: Label = { kind: "target", name: "" };

/** The label of one of several targets. */
export const targetLabel = (name: string): Label => ({ kind: "targets", name });

export const isDomain = ({ kind }: Label): boolean => kind === "domain";

/** The label in messages and records: `domain "code"`, `target`, `target "exam"`. It differs for different labels, so it can also be the key of a Map. */
export const labelName = ({ kind, name }: Label): string =>
  kind === "target" ? "target" : `${kind === "domain" ? "domain" : "target"} "${name}"`;
