"""Modules as one file: what is taken from which, and what is refused."""

import pytest

from services.web.bundle import BundleError, bundled, joined, squeezed, stripped


def of(**modules: str) -> str:
    return bundled(lambda path: modules[path.removesuffix(".js").replace("/", "_")], "main.js")


def test_a_module_comes_after_those_that_it_imports_and_takes_what_it_names() -> None:
    text = of(
        main='import { one as uno, two } from "./a.js";\nimport page, * as x from "y";\n'.replace(
            "page, * as x", "page"
        )
        + 'import * as all from "./b/c.js";\nimport Page from "./b/c.js";\nuno(two, all, page, Page);\n',
        a='// What it is for.\nimport { h } from "preact";\nexport const one = () => h;\nconst two = 2;\n'
        "export { two };\n",
        b_c='import { one } from "../a.js";\n/** A page. */\nexport default function Page() {\n  return one;\n}\n'
        "export async function load() {}\nexport class Thing {}\n",
    )
    assert text == (
        'import { h } from "preact";\nimport page from "y";\n'
        "const m0=(()=>{\nconst one=()=>h;\nconst two=2;\nreturn{two,one}\n})();const{two,one}=m0;\n"
        "const m1=(()=>{\nfunction Page(){\nreturn one;\n}\nasync function load(){}\n"
        "class Thing{}\nreturn{load,Thing,default:Page}\n})();const{load,Thing}=m1;\n"
        "const{}=(()=>{\nconst{one:uno}=m0;\nconst all=m1;\nconst{default:Page}=m1;\n"
        "uno(two,all,page,Page);\nreturn{}\n})();\n"
    )


def test_a_name_of_two_modules_or_of_the_browser_is_taken_from_the_one_that_is_meant() -> None:
    text = of(
        main='import { load, open, only } from "./a.js";\nimport { load as other } from "./b.js";\n'
        "load(open, other, only);",
        a="export const load = 1;\nexport const open = 2;\nexport const only = 3;\n",
        b="export const load = 4;\nexport const alone = 5;\n",
    )
    assert "const{only}=m0;" in text
    assert "const{load,open}=m0;\nconst{load:other}=m1;\nload(open,other,only);" in text


def test_a_module_that_all_see_whole_is_no_value_of_its_own() -> None:
    text = of(main='import { a } from "./a.js";\na();', a="export const a = 1;\nexport function b() {}\n")
    value = "const{a,b}=(()=>{\nconst a=1;\nfunction b(){}\nreturn{a,b}\n})();\n"
    assert text == value + "const{}=(()=>{\na();\nreturn{}\n})();\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("if (a === b) { c = [1, 2]; }", "if(a===b){c=[1,2];}"),
        ("a + +b - -c", "a + +b - -c"),
        ("x ? .5 : 1; y ?? z", "x?.5:1;y??z"),
        ("""f("a , b", 'c = "d"', "\\" , e")""", """f("a , b",'c = "d"',"\\" , e")"""),
        ("`a , ${b , { c : 1 }} , ${`d , ${e , f}`} \\` , g` , h", "`a , ${b,{c:1}} , ${`d , ${e,f}`} \\` , g`,h"),
        ("a.replace(/[/ , `]+ = \\/ /g, 'x , y') / 2 / z", "a.replace(/[/ , `]+ = \\/ /g,'x , y')/ 2 / z"),
        ("return /a , b/.test(c)", "return /a , b/.test(c)"),
        ("for (const one of { ...all }) yield one", "for(const one of{...all})yield one"),
    ],
)
def test_spaces_go_from_code_and_stay_in_texts_and_patterns(text: str, wanted: str) -> None:
    assert squeezed(text) == wanted


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ({"main": 'import { a } from "./b.js";', "b": "export const b = 1;"}, "imports a, which b.js does not export"),
        ({"main": 'import "./b.js";'}, "neither an import nor an export"),
        ({"main": 'import { a } from "./b.js"; a();'}, "neither an import nor an export"),
        ({"main": "export let a = 1;"}, "neither an import nor an export"),
        ({"main": "export default () => 1;"}, "neither an import nor an export"),
        ({"main": 'import { a } from "./b.js";', "b": 'import { c } from "./main.js";'}, "import each other: main.js"),
    ],
)
def test_what_it_does_not_know_is_refused(modules: dict[str, str], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        of(**modules)


def test_comments_of_whole_lines_go_and_what_is_within_a_line_stays() -> None:
    assert stripped("  // gone\na = 'b // c'; // stays\n\n/* gone\n * too */\n/** gone */\n  /* a */ kept();\n") == (
        "a = 'b // c'; // stays\n/* a */ kept();"
    )
    assert joined(["/* a */\na { b: c; }\n", ".d { e: f; }"]) == "a{b:c;}.d{e:f;}\n"
    # A space before a colon means a descendant, and in a calculation it is needed.
    assert joined(["a :hover > b, c {\n  d: calc(1px - 2px) e;\n}\n"]) == "a :hover > b,c{d:calc(1px - 2px) e;}\n"
