import { QueryClientProvider } from '@tanstack/react-query';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { App } from './app.tsx';
import { startSession } from './auth/session.ts';
import { loadConfig } from './config.ts';
import { newQueryClient } from './query-client.ts';
import './styles/tokens.css';
import './styles/base.css';
import './styles/controls.css';

interface TrustedTypes {
  createPolicy(name: string, rules: { createHTML: (html: string) => string | null }): unknown;
}

// The content security policy lets no text become markup, but for the empty one
// with which React Aria clears its announcements.
(globalThis as { trustedTypes?: TrustedTypes }).trustedTypes?.createPolicy('default', {
  createHTML: (html) => (html === '' ? html : null),
});

// A new version was put up while this one was open: its pages are gone.
addEventListener('vite:preloadError', () => {
  const last = Number(sessionStorage.getItem('reloaded') ?? 0);
  if (Date.now() - last < 10_000) return; // reloading did not help; the error is shown
  sessionStorage.setItem('reloaded', String(Date.now()));
  location.reload();
});

const root = document.getElementById('root');
if (!root) throw new Error('index.html has no #root');
await Promise.all([loadConfig(), startSession()]);
createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={newQueryClient()}>
      <App />
    </QueryClientProvider>
  </StrictMode>,
);
