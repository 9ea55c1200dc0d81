/** The example at the beginning of each command's help, in lines of at most 80 characters. */

/** Default port of `gradmix watch`. */
export const DEFAULT_PORT = 8321;

export const firstExamples: Readonly<Record<string, string>> = {
  train: `Example: three domains, a small target, everything else by default
  $ gradmix train --domain code='src/**/*.ts' --domain docs='docs/*.md' \\
      --domain mail=mail.jsonl.gz --target 'answers/*.md' --out runs/first
`,
  compare: `Example: does the mixture help on your text?
  $ gradmix compare --domain code='src/**/*.ts' --domain docs='docs/*.md' \\
      --target 'answers/*.md' --steps 500 --rules uniform,proportional,dga \\
      --seeds 3 --out runs/question
`,
  cluster: `Example: divide a corpus into 64 domains, and train on them
  $ gradmix cluster 'text/*.jsonl.gz' --clusters 64 --out clusters
  $ gradmix train --domains clusters --target 'answers/*.md' --out runs/first
`,
  divide: `Example: four parts per domain, and a run that chooses among them
  $ gradmix divide --domain code='src/**/*.ts' --domain docs='docs/**/*.md' \\
      --target 'answers/*.md' --out parts
  $ gradmix train --domains parts --target 'answers/*.md' --out runs/parts
`,
  histogram: `Example: which domains resemble the target?
  $ gradmix histogram --domain code='src/**/*.ts' --domain docs='docs/*.md' \\
      --target 'answers/*.md'
`,
  prepare: `Example: turn a large corpus into tokens once, and train on them
  $ gradmix prepare --domains corpus --target 'exam/*.md' --out prepared
  $ gradmix train --domains prepared
`,
  report: `Examples:
  Write runs/first/report.html, for a run that has ended or still trains:
    $ gradmix report runs/first

  Compare two rules with three seeds each. Runs that differ only in their seed
  form one line with a band:
    $ gradmix report runs/dga-* runs/uniform-* --out compared.html

  Write figures for a paper, and metrics for other tools:
    $ gradmix report runs/first --svg figures --csv --tensorboard events
    $ tensorboard --logdir events
`,
  watch: `Examples:
  In a second terminal, while the run trains:
    $ gradmix watch runs/first

  On any free port:
    $ gradmix watch runs/first --port 0

Only this machine can open the page. From another machine, forward the port:
    $ ssh -L ${DEFAULT_PORT}:127.0.0.1:${DEFAULT_PORT} HOST
`,
  export: `Examples:
  The mean weights of a run, for OLMo-core:
    $ gradmix export runs/first --to olmo-core --map web='s3://corpus/web/*.npy' \\
        --map code='s3://corpus/code/*.npy' --out mixture.yaml

  Weights that change in four stages, for a run of 300 billion tokens:
    $ gradmix export runs/first --to levanter --stages 4 --scale-to 300B \\
        --context 4096 --out mixture.yaml
`,
  mix: `Example: your trainer starts this command, writes a line and reads a line. Here
it sends the alignments of two domains with the target at step 10:
  $ gradmix mix --domains web,code --state-file mix.json
  {"type":"observe","step":10,"alignments":{"web":0.1,"code":0.4},"standardErrors":{"web":0.05,"code":0.05}}
  {"type":"weights","step":10,"changed":true,"weights":{"web":0.335,"code":0.665},…}
`,
  doctor: `Example: which backends run on this machine, and how fast?
  $ gradmix doctor
`,
};
