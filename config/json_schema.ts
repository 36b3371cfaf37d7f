/**
 * The JSON Schema of configuration files, for editors: completion, descriptions and red lines while typing.
 *
 * It is made from the same schemas that validate, so it cannot say something else. What only code can decide
 * (a refinement, the options of a module) it lets pass. It keeps to keywords that mean the same in draft
 * 2020-12 and in draft-07, because many editors know only the latter; therefore also `$ref` never has
 * neighbours that matter.
 * @module
 */
import type { DevicePlugin, DriverPlugin, OptionsSchema, Plugin, Slot } from "../plugins/plugin.ts";
import { type JsonSchema, jsonSchemaOf } from "./option_schema.ts";
import { isPlainObject } from "./plain.ts";
import { partKind, type PluginKind } from "./kinds.ts";
import { type PluginRegistry, SPECIFIER_PATTERN } from "./registry.ts";
import { deviceKeys, fileKeys, switchKeys } from "./schema.ts";

/** Keys that stand beside the options, with the schema of each. */
interface OwnKeys {
  properties: Record<string, JsonSchema>;
  required: readonly string[];
}

const SPECIFIER: JsonSchema = {
  type: "string",
  pattern: SPECIFIER_PATTERN,
  description: "A module that exports a plugin, relative to this file",
};

/**
 * Makes the JSON Schema of a whole configuration file.
 * @param registry the built-in plugins; each appears with its options
 * @returns a JSON value, the same for the same plugins, with keys in a fixed order
 */
export function configJsonSchema(registry: PluginRegistry): JsonSchema {
  const definitions: Record<string, JsonSchema> = {};
  /** Defines the entry of a plugin that takes these options; returns its name. */
  const define = (name: string, plugin: Plugin, schema: OptionsSchema<unknown>, own: OwnKeys) => {
    const { $defs, definitions: older, ...options } = withoutReference(
      jsonSchemaOf(schema) ?? { type: "object" },
    );
    for (const part of [$defs, older]) {
      if (!isPlainObject(part)) continue;
      for (const [key, one] of Object.entries(part)) {
        definitions[`${name}.${key}`] = moved(one, name) as JsonSchema;
      }
    }
    definitions[name] = entryOf(plugin, moved(options, name) as JsonSchema, own);
    return name;
  };
  for (const kind of registry.kinds) {
    const plugins = registry.builtIns(kind);
    const names = plugins.map((plugin) => {
      const own = ownKeys(kind, (plugin as DevicePlugin).slots ?? {}, driverChoice(plugin));
      return define(`${kind}.${plugin.name}`, plugin, plugin.options, own);
    });
    // A device from a module may have slots of its own; those of the built-in ones are known.
    definitions[`${kind}.module`] = moduleEntry(kind, ownKeys(kind, registry.deviceSlots));
    definitions[kind] = choiceOf(kind, plugins, names, definitions);
  }
  defineSoftwareDrivers(registry, definitions, define);
  const file = jsonSchemaOf(fileKeys)!;
  const properties = file.properties as Record<string, JsonSchema>;
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "deno-virtio configuration",
    description: "Which virtio devices run, over which transports, through which offloads",
    type: "object",
    properties: { ...properties, devices: { ...properties.devices, items: reference("device") } },
    required: ["devices"],
    additionalProperties: false,
    $defs: definitions,
  };
}

/** Under which name it is defined what may stand under `driver` of this device. */
function driverChoice({ kind, name, driver }: Plugin & Pick<DevicePlugin, "driver">): string {
  return kind === "device" && driver !== undefined ? `driver.of.${name}` : "driver";
}

/**
 * A guest made of software takes the options of the driver's half that a device brings; of a device from a
 * module, any.
 */
function defineSoftwareDrivers(
  registry: PluginRegistry,
  definitions: Record<string, JsonSchema>,
  define: (name: string, plugin: Plugin, schema: OptionsSchema<unknown>, own: OwnKeys) => string,
): void {
  const drivers = registry.builtIns("driver") as readonly DriverPlugin[];
  for (const device of registry.builtIns("device") as readonly DevicePlugin[]) {
    if (device.driver === undefined) continue;
    const { options } = device.driver;
    const names = drivers.map((driver) => {
      const name = `driver.${driver.name}`;
      return driver.runsSoftwareDriver === true
        ? define(`${name}.${device.name}`, driver, options, ownKeys("driver", {}))
        : name;
    });
    definitions[driverChoice(device)] = choiceOf("driver", drivers, names, definitions);
  }
  for (const { name, runsSoftwareDriver } of drivers) {
    if (runsSoftwareDriver === true) delete definitions[`driver.${name}`].additionalProperties;
  }
}

/**
 * The JSON Schema as the text of a file: two spaces, a line break at the end.
 * @param registry the built-in plugins
 */
export function configJsonSchemaText(registry: PluginRegistry): string {
  return `${JSON.stringify(configJsonSchema(registry), null, 2)}\n`;
}

function reference(name: string): JsonSchema {
  return { $ref: `#/$defs/${name}` };
}

/**
 * A schema that is nothing but a reference to one of its own definitions, spelled out: keys are to be added
 * to it.
 */
function withoutReference(schema: JsonSchema): JsonSchema {
  const name = /^#\/\$defs\/([^/]+)$/.exec(String(schema.$ref))?.[1];
  const target = name !== undefined && isPlainObject(schema.$defs) ? schema.$defs[name] : undefined;
  if (!isPlainObject(target)) return schema;
  const { $ref: _followed, ...rest } = schema;
  return { ...target, ...rest };
}

/** The keys of ours beside those of a plugin. */
function ownKeys(
  kind: PluginKind,
  slots: Readonly<Record<string, Slot>>,
  driverName = "driver",
): OwnKeys {
  if (partKind(kind).hasSwitch === true) {
    return { properties: jsonSchemaOf(switchKeys)!.properties as Record<string, JsonSchema>, required: [] };
  }
  if (kind !== "device") return { properties: {}, required: [] };
  const keys = jsonSchemaOf(deviceKeys(slots))!.properties as Record<string, JsonSchema>;
  const places = Object.entries(slots).map(([name, slot]) => [
    name,
    slot.many === true ? { ...keys[name], items: reference(slot.kind) } : described(slot.kind, keys[name]!),
  ]);
  const driver = described(driverName, keys.driver!);
  return { properties: { ...keys, driver, ...Object.fromEntries(places) }, required: ["driver"] };
}

/** A reference with a description, in a form in which draft-07 heeds both. */
function described(name: string, { description }: JsonSchema): JsonSchema {
  return { description, allOf: [reference(name)] };
}

/** The object form of a built-in plugin. */
function entryOf(plugin: Plugin, options: JsonSchema, own: OwnKeys): JsonSchema {
  const about = plugin.summary ?? options.description;
  const use: JsonSchema = { const: plugin.name, ...(about !== undefined && { description: about }) };
  options = withInner(options, plugin.kind);
  const merged = withKeys(options, {
    properties: { use, ...own.properties },
    required: ["use", ...own.required],
  });
  return { title: plugin.name, ...(about !== undefined && { description: about }), ...merged };
}

/** Adds keys to an object schema; to each of its forms, where it is a choice. */
function withKeys(options: JsonSchema, own: OwnKeys): JsonSchema {
  for (const keyword of ["anyOf", "oneOf"]) {
    const forms = options[keyword];
    if (Array.isArray(forms) && options.properties === undefined) {
      return { ...options, [keyword]: forms.map((form: JsonSchema) => withKeys(form, own)) };
    }
  }
  const isSimple = options.type === "object" && options.allOf === undefined && options.$ref === undefined;
  if (!isSimple) return { type: "object", properties: own.properties, required: own.required };
  const { properties, required, ...rest } = options;
  // What the loader does: a schema that lists its keys and does not say that it takes others, takes no
  // others.
  const closed = isPlainObject(properties) && rest.additionalProperties === undefined &&
    rest.patternProperties === undefined && rest.propertyNames === undefined;
  return {
    ...rest,
    // Ours first for the reader, and once more, because the loader takes its keys before the plugin sees
    // them.
    properties: {
      ...own.properties,
      ...(properties as Record<string, JsonSchema> | undefined),
      ...own.properties,
    },
    required: [...own.required, ...Array.isArray(required) ? required : []],
    ...(closed && { additionalProperties: false }),
  };
}

/** Where a part has one that it wraps stands a part of its kind; its own schema leaves that to the loader. */
function withInner(options: JsonSchema, kind: PluginKind): JsonSchema {
  const { properties } = options;
  const { wraps } = partKind(kind);
  if (wraps === undefined || !isPlainObject(properties) || !isPlainObject(properties[wraps])) return options;
  const inner = properties[wraps];
  if (["type", "anyOf", "oneOf", "allOf", "$ref", "enum", "const"].some((keyword) => keyword in inner)) {
    return options;
  }
  return { ...options, properties: { ...properties, [wraps]: { ...inner, allOf: [reference(kind)] } } };
}

/** The object form of a module: its options are unknown here. */
function moduleEntry(kind: PluginKind, own: OwnKeys): JsonSchema {
  return {
    title: "module",
    description: `${partKind(kind).title} from a module, with its options`,
    type: "object",
    properties: { use: SPECIFIER, ...own.properties },
    required: ["use", ...own.required],
  };
}

/** Everything that may stand where a plugin of this kind is wanted. */
function choiceOf(
  kind: PluginKind,
  plugins: readonly Plugin[],
  names: readonly string[],
  definitions: Readonly<Record<string, JsonSchema>>,
): JsonSchema {
  const objects = [...names.map(reference), reference(`${kind}.module`)];
  // A device is never complete by its name alone, and neither is a plugin with options that must be given.
  if (kind === "device") return { description: partKind(kind).title, anyOf: objects };
  const bare = plugins.filter((_, i) => isEnough(definitions[names[i]!]!)).map((plugin) => plugin.name);
  const byName = { description: "The name alone, where no option is needed", type: "string", enum: bare };
  return {
    description: partKind(kind).title,
    anyOf: [...bare.length > 0 ? [byName] : [], SPECIFIER, ...objects],
  };
}

/** Is `use` all that must be given? */
function isEnough(entry: JsonSchema): boolean {
  const forms = entry.anyOf ?? entry.oneOf;
  if (Array.isArray(forms)) return forms.some(isEnough);
  return Array.isArray(entry.required) && entry.required.length === 1;
}

/** Lets references that meant the plugin's own schema mean the same place in the whole. */
function moved(schema: unknown, name: string): unknown {
  if (Array.isArray(schema)) return schema.map((one) => moved(one, name));
  if (!isPlainObject(schema)) return schema;
  return Object.fromEntries(
    Object.entries(schema).map(([key, value]) => {
      if (key !== "$ref" || typeof value !== "string") return [key, moved(value, name)];
      if (value === "#") return [key, `#/$defs/${name}`];
      return [key, value.replace(/^#\/(\$defs|definitions)\//, `#/$defs/${name}.`)];
    }),
  );
}
