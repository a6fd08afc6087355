// The token of this tab: taken from `#token=…` or the sign-in form, kept in sessionStorage and nowhere else.

const TOKEN = "tao.token";
const NAME = "tao.name";

/** Take a token out of the address at once, so that no bookmark, history or screenshot keeps it. */
export function takeFromAddress() {
  const found = /^#token=(.+)$/.exec(location.hash);
  if (!found) return;
  history.replaceState(null, "", `${location.pathname}${location.search}#/`);
  setToken(decodeURIComponent(found[1]));
}

export const token = () => sessionStorage.getItem(TOKEN);
export const setToken = (value) => sessionStorage.setItem(TOKEN, value.trim());
export const forgetToken = () => sessionStorage.removeItem(TOKEN);

/** How the holder of the local token signs in the journal. */
export const personName = () => sessionStorage.getItem(NAME) ?? "";
export const setPersonName = (value) => sessionStorage.setItem(NAME, value.trim());
