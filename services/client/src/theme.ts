import { persisted, usePersisted } from './persisted.ts';

export type Theme = 'system' | 'light' | 'dark';

const themes: readonly Theme[] = ['system', 'light', 'dark'];

// public/theme.js applies it before the first paint.
const store = persisted<Theme>('orderflow.theme', (stored) => themes.find((theme) => theme === stored) ?? 'system');

store.subscribe(() => {
  const theme = store.get();
  if (theme === 'system') delete document.documentElement.dataset['theme'];
  else document.documentElement.dataset['theme'] = theme;
});

export function useTheme(): [Theme, (theme: Theme) => void] {
  return [usePersisted(store), store.set];
}

export function nextTheme(theme: Theme): Theme {
  return themes[(themes.indexOf(theme) + 1) % themes.length] ?? 'system';
}
