import { useState } from 'react';
import { maxQuantity } from '../basket/basket.ts';
import { Icon } from './icons.tsx';
import './quantity-field.css';

/** A number of units, 1 to maxQuantity, by buttons or typed. */
export function QuantityField({ value, label, onChange }: { value: number; label: string; onChange: (value: number) => void }) {
  const [draft, setDraft] = useState<string>();
  const step = (by: number) => {
    setDraft(undefined);
    onChange(Math.min(Math.max(value + by, 1), maxQuantity));
  };
  return (
    <div className="quantity" role="group" aria-label={label}>
      <button type="button" aria-label="One less" disabled={value <= 1} onClick={() => { step(-1); }}>
        <Icon name="minus" />
      </button>
      <input
        type="number"
        className="number"
        aria-label={label}
        inputMode="numeric"
        min={1}
        max={maxQuantity}
        step={1}
        value={draft ?? value}
        onChange={({ target }) => {
          setDraft(target.value);
          const typed = target.valueAsNumber;
          if (Number.isInteger(typed) && typed >= 1 && typed <= maxQuantity) onChange(typed);
        }}
        onBlur={({ target }) => {
          // What is out of bounds goes to the nearest bound, what is no number back to what it was.
          const typed = Math.round(target.valueAsNumber);
          setDraft(undefined);
          if (!Number.isNaN(typed)) onChange(Math.min(Math.max(typed, 1), maxQuantity));
        }}
      />
      <button type="button" aria-label="One more" disabled={value >= maxQuantity} onClick={() => { step(1); }}>
        <Icon name="plus" />
      </button>
    </div>
  );
}
