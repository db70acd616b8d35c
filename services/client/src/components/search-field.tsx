import { Empty } from './feedback.tsx';
import { Icon } from './icons.tsx';
import './search-field.css';

export function SearchField({ value, label, onChange }: { value: string; label: string; onChange: (value: string) => void }) {
  return (
    <label className="search">
      <span className="visually-hidden">{label}</span>
      <Icon name="search" />
      <input
        type="search"
        className="input"
        placeholder={label}
        value={value}
        onChange={(event) => {
          onChange(event.target.value);
        }}
      />
    </label>
  );
}

/** A search that found nothing. */
export function NoMatch({ search }: { search: string }) {
  return (
    <Empty icon="search" title={`No product matches “${search}”`}>
      Try fewer or other words.
    </Empty>
  );
}
