/** What is not seen, or moves what is: controls, bidi and other format characters, blanks that look like nothing. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}\p{Default_Ignorable_Code_Point}\u2800]/gu;
/** Variation selectors choose between the text and the emoji form of the character before them. */
const HARMLESS = /[\uFE0E\uFE0F]/;

/**
 * Text by a stranger as it may be shown to a person, on a page or in a terminal: what would be invisible or would
 * reorder, overwrite or hide other text stands as its code point, such as `[U+202E]`. Markup is not touched.
 */
export function visible(text: string): string {
  return text.replace(UNSEEN, (character) =>
    HARMLESS.test(character)
      ? character
      : `[U+${character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}]`,
  );
}
