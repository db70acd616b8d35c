import { useState } from 'react';
import { announce } from '../announce.ts';
import { Icon } from './icons.tsx';

/** Puts a text on the clipboard, where the browser lets it. */
export function CopyButton({ text, label }: { text: string; label: string }) {
  const [copied, setCopied] = useState(false);
  if (!('clipboard' in navigator)) return null; // on plain http
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      return; // not allowed: the text can still be selected
    }
    setCopied(true);
    announce('Copied');
    setTimeout(() => {
      setCopied(false);
    }, 1500);
  };
  return (
    <button type="button" className="round-button copy" aria-label={label} title={label} onClick={() => void copy()}>
      <Icon name={copied ? 'check' : 'copy'} />
    </button>
  );
}
