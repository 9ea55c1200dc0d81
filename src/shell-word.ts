/** Words of commands in messages, which a user copies into a shell. */

/** The word as a POSIX shell reads it: in quotes if it has a space or another character that a shell would not take as it is. */
export const shellWord = (word: string): string =>
  /^[\w./:@%+=,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
