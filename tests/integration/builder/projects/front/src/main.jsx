import { render } from "preact";

const App = ({ name }) => <h1>hello from {name}</h1>;

render(<App name="the front end" />, document.getElementById("app"));
