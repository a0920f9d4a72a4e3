import { defineConfig } from "vite";

// one script and one style sheet with fixed names, so that the server and the exported file need no list of them
export default defineConfig({
  base: "./",
  esbuild: { jsx: "automatic", jsxImportSource: "preact", legalComments: "none" },
  build: {
    outDir: "../src/stratoscope/view/static",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    rollupOptions: {
      output: {
        entryFileNames: "view.js",
        chunkFileNames: "[name].js",
        assetFileNames: "view[extname]",
        inlineDynamicImports: true,
      },
    },
  },
});
