import react from '@vitejs/plugin-react';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { brotliCompress, constants, gzip } from 'node:zlib';
import type { Plugin } from 'vite';
import { defineConfig } from 'vitest/config';

// Where the gateway listens while pages are developed (npm run dev).
const gateway = process.env['GATEWAY_URL'] ?? 'http://127.0.0.1:5108';

export default defineConfig({
  plugins: [react(), runtimeConfig(), precompress()],
  build: {
    target: 'es2022',
    assetsInlineLimit: 0, // the content security policy knows no data: URLs
    manifest: true, // read by scripts/size.ts
    modulePreload: { polyfill: false },
    rolldownOptions: {
      output: {
        // Few files: what every page needs is one of libraries, which changes
        // rarely, and one of ours. Pages and dialogs are read when they are opened.
        codeSplitting: {
          groups: [
            { name: 'accounts', test: /node_modules\/(oidc-client-ts|jwt-decode)|src\/auth\/accounts\.ts/, priority: 4 },
            { name: 'libraries', test: /node_modules\/(?!react-aria|react-stately|@react-|@internationalized|@swc)/, priority: 3 },
            { name: 'shop', test: /src\/(?!main|pages\/(basket|order|history|stock|operations|use-)|stock\/|operations\/|api\/deadletters|components\/(.*dialog|journey|modal|text-input)|auth\/.*dialog)/, priority: 2 },
            { name: 'dialogs', test: /node_modules|src\/components\/(modal|text-input)/, priority: 1 },
          ],
        },
      },
    },
  },
  test: {
    environment: 'happy-dom',
    include: ['src/**/*.test.{ts,tsx}'],
    restoreMocks: true,
    unstubGlobals: true,
  },
  server: {
    port: 5173,
    strictPort: true,
    proxy: { '^/(orders|products|customers|deadletters|auth)(/|\\?|$)': { target: gateway } },
  },
});

// runtimeConfig answers for the server that ships the pages.
function runtimeConfig(): Plugin {
  return {
    name: 'runtime-config',
    apply: 'serve',
    configureServer(server) {
      server.middlewares.use('/config.json', (_request, response) => {
        response.setHeader('Content-Type', 'application/json');
        response.end(JSON.stringify({ jaegerUrl: process.env['JAEGER_URL'] ?? '' }));
      });
    },
  };
}

// precompress writes a .br and a .gz beside each text file, at a level that
// would be too slow for a server to do on the way.
function precompress(): Plugin {
  const brotli = promisify(brotliCompress);
  const zip = promisify(gzip);
  return {
    name: 'precompress',
    apply: 'build',
    async writeBundle({ dir = 'dist' }) {
      for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
        const file = path.join(entry.parentPath, entry.name);
        if (!entry.isFile() || !/\.(html|js|css|svg|json|txt|webmanifest)$/.test(entry.name) || file.includes('.vite')) continue;
        const text = await readFile(file);
        await writeFile(`${file}.br`, await brotli(text, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }));
        await writeFile(`${file}.gz`, await zip(text, { level: 9 }));
      }
    },
  };
}
