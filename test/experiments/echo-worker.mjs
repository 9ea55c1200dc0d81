// A worker that answers each job with its double, ends at −1, refuses −2, and is slow for others.
process.on("message", (job) => {
  if (job.n === -1) process.exit(3);
  if (job.n === -2) process.send({ error: "no such number" });
  else setTimeout(() => process.send({ result: 2 * job.n }), 5);
});
process.on("disconnect", () => process.exit(0));
