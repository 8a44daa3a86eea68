// What every module of the console draws with. Text is only ever a text node: nothing here makes HTML out of a string.
import { h, render } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { batch, computed, effect, signal, useComputed, useSignal, useSignalEffect } from "@preact/signals";
import htm from "htm";

export const html = htm.bind(h);
export {
  batch, computed, effect, h, render, signal, useComputed, useEffect, useLayoutEffect, useMemo, useRef, useSignal,
  useSignalEffect, useState,
};
