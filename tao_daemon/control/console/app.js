// The page: sign in, then a frame around one view.

import { AdaptersView } from "./adapters.js";
import { AuditView } from "./audit.js";
import { Frame } from "./frame.js";
import { Login } from "./login.js";
import { Overview } from "./overview.js";
import { Problem } from "./parts.js";
import { RolloutsView } from "./rollouts.js";
import { RoundView } from "./round.js";
import { RoundsView } from "./rounds.js";
import { usePlace } from "./router.js";
import { takeFromAddress, token } from "./session.js";
import { may, refresh, signIn, useStore } from "./store.js";
import { html, render } from "./vendor/htm-preact.js";

const VIEWS = {
  overview: { title: "Overview", view: Overview },
  rounds: { title: "Rounds", view: RoundsView, one: RoundView },
  rollouts: { title: "Rollouts", view: RolloutsView },
  adapters: { title: "Adapters", view: AdaptersView },
  audit: { title: "Audit", view: AuditView },
};

function App() {
  const state = useStore();
  const place = usePlace();
  if (!state.who) return html`<${Login} problem=${state.signInProblem} busy=${state.signingIn} />`;
  const known = VIEWS[place.view];
  return html`<${Frame} place=${place} title=${titleOf(place, known)}><${Content} state=${state} place=${place}
    known=${known} /><//>`;
}

function Content({ state, place, known }) {
  if (!may(state.who, "read")) return html`<${Problem} error=${withoutRead(state.who)} />`;
  if (!state.status && state.problem) return html`<${Problem} error=${state.problem} retry=${refresh} />`;
  if (!state.status) return html`<p class="empty" aria-busy="true">Reading …</p>`;
  if (!known) return html`<p class="empty">There is nothing here. <a href="#/">Go to the overview</a></p>`;
  const View = place.id !== null && known.one ? known.one : known.view;
  return html`<${View} key=${`${place.view}/${place.id}`} place=${place} />`;
}

function titleOf(place, known) {
  if (!known) return "Nothing here";
  return place.id !== null && known.one ? `Round ${place.id}` : known.title;
}

const withoutRead = (who) => ({
  message: `The token of ${who.name} has no scope read, so there is nothing to show.`,
  remedy: "Ask an administrator for `tao-daemon token create NAME --scope read`.",
});

takeFromAddress();
// A link with a token that is opened in a tab that has the page already only changes the hash.
addEventListener("hashchange", () => {
  if (!location.hash.startsWith("#token=")) return;
  takeFromAddress();
  location.reload();
});
render(html`<${App} />`, document.getElementById("app"));
if (token()) signIn();
