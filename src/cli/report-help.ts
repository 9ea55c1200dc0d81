/** What `gradmix report --help` and `gradmix watch --help` begin with. */

/** Where `gradmix watch` listens when nothing is said. */
export const DEFAULT_PORT = 8321;

export const reportExamples: string = `Examples:
  A run that has ended, or still goes on, to runs/first/report.html:
    $ gradmix report runs/first

  Two rules with three seeds each, on one page; runs that differ in their seed
  alone are one line with a band:
    $ gradmix report runs/dga-* runs/uniform-* --out compared.html

  Figures for a paper, and metrics for other tools:
    $ gradmix report runs/first --svg figures --csv --tensorboard events
    $ tensorboard --logdir events`;

export const watchExamples: string = `Examples:
  In a second terminal, while a run goes on:
    $ gradmix watch runs/first

  On any port that is free:
    $ gradmix watch runs/first --port 0

The page is for this machine alone; with ssh -L ${DEFAULT_PORT}:127.0.0.1:${DEFAULT_PORT} it is
for yours as well.`;
