// The sign-in form: a token, checked against the API before anything is shown.

import { Problem } from "./parts.js";
import { signIn } from "./store.js";
import { html, useEffect, useRef } from "./vendor/htm-preact.js";

export function Login({ problem, busy }) {
  const field = useRef(null);
  useEffect(() => {
    document.title = "Sign in · tao-daemon";
    if (!busy) field.current.focus();
  }, [busy]);

  function submit(event) {
    event.preventDefault();
    if (field.current.value.trim()) signIn(field.current.value);
  }

  return html`<main class="login">
    <img src="icon.svg" alt="" width="40" height="40" />
    <h1>tao-daemon</h1>
    <form onSubmit=${submit} aria-busy=${busy}>
      <label class="field"><span>Token</span>
        <input ref=${field} type="password" name="token" autocomplete="off" spellcheck="false" required
          aria-describedby="token-help" disabled=${busy} /></label>
      <button type="submit" class="do tone-go" disabled=${busy}>${busy ? "Signing in …" : "Sign in"}</button>
    </form>
    ${
      problem
        ? html`<${Problem} error=${explained(problem)}
      retry=${problem.status === 0 ? () => signIn() : null} />`
        : null
    }
    <p id="token-help" class="quiet">On the daemon's machine it is in <code>data_dir/control.token</code>. For others an
      administrator makes one: <code>tao-daemon token create NAME --scope read</code>. It is kept in this tab only.</p>
  </main>`;
}

function explained(problem) {
  if (problem.status !== 401) return problem;
  return { message: "This token is not valid.", remedy: "It may be mistyped, expired or revoked." };
}
