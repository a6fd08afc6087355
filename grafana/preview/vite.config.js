import { defineConfig } from 'vite';

// Grafana's own bundles read process.env and expect a global object, as webpack gives them.
export default defineConfig({
  esbuild: { jsx: 'automatic' },
  define: { 'process.env': {}, 'process.env.NODE_ENV': '"production"', global: 'globalThis' },
  build: { chunkSizeWarningLimit: 20000, sourcemap: false, minify: false, reportCompressedSize: false },
});
