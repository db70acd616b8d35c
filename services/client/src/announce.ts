/** Tells a screen reader what has changed; sighted people see it where it is. */
export function announce(text: string): void {
  const region = document.getElementById('announcements');
  if (!region) return;
  // The same words twice are only read twice when they are another node.
  region.replaceChildren(document.createTextNode(text));
}
