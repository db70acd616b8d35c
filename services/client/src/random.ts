/** Random bytes as lower-case hexadecimal digits. */
export function randomHex(bytes: number): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (b) => b.toString(16).padStart(2, '0')).join('');
}

/** A random UUID (version 4). crypto.randomUUID is missing on plain http. */
export function randomUUID(): string {
  const hex = randomHex(16);
  const variant = '89ab'.charAt(parseInt(hex.charAt(16), 16) & 3);
  return [hex.slice(0, 8), hex.slice(8, 12), `4${hex.slice(13, 16)}`, variant + hex.slice(17, 20), hex.slice(20)].join('-');
}
