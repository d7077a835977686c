// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"io/fs"
	"reflect"
	"slices"
	"testing"

	"sigs.k8s.io/yaml"

	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/smi"
)

type definition struct {
	Metadata struct{ Name string }
	Spec     struct {
		Group      string
		Names      struct{ Kind, Plural string }
		Conversion struct{ Strategy string }
		Versions   []struct {
			Name                     string
			Served, Storage          bool
			Schema                   map[string]any
			AdditionalPrinterColumns []any
		}
	}
}

// Every version that the translator reads is served, and no other; the newest is stored;
// and as nothing is converted, all have the schema that keeps what each can say.
func TestCRDsServeWhatIsRead(t *testing.T) {
	read := objects.NewRegistry(smi.New(smi.Options{}).Types()...)
	files, err := fs.Glob(CRDs, "crds/*.yaml")
	if err != nil || len(files) != 5 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, file := range files {
		b, err := CRDs.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d definition
		if err := yaml.Unmarshal(b, &d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		s := d.Spec
		if want := s.Names.Plural + "." + s.Group; d.Metadata.Name != want {
			t.Errorf("%s: it is named %s, want %s", file, d.Metadata.Name, want)
		}
		if s.Conversion.Strategy != "None" {
			t.Errorf("%s: conversion %q", file, s.Conversion.Strategy)
		}
		var versions []string
		for i, v := range s.Versions {
			versions = append(versions, v.Name)
			if !v.Served || v.Storage != (i == 0) {
				t.Errorf("%s: %s: served %t, stored %t", file, v.Name, v.Served, v.Storage)
			}
			if !reflect.DeepEqual(v.Schema, s.Versions[0].Schema) || !reflect.DeepEqual(v.AdditionalPrinterColumns, s.Versions[0].AdditionalPrinterColumns) {
				t.Errorf("%s: %s has another schema or other columns than %s", file, v.Name, s.Versions[0].Name)
			}
			keeps(t, file, "", v.Schema["openAPIV3Schema"].(map[string]any))
		}
		want := read.Versions(objects.Kind{Group: s.Group, Kind: s.Names.Kind})
		slices.Reverse(want)
		if !slices.Equal(versions, want) {
			t.Errorf("%s: versions %v, newest first; read are %v", file, versions, want)
		}
	}
}

// keeps reports objects of a schema that would lose a field which it does not name.
func keeps(t *testing.T, file, path string, schema map[string]any) {
	t.Helper()
	if schema["type"] == "object" && schema["x-kubernetes-preserve-unknown-fields"] != true {
		t.Errorf("%s: %s loses unknown fields", file, path)
	}
	if items, ok := schema["items"].(map[string]any); ok {
		keeps(t, file, path+"[]", items)
	}
	for name, s := range mapOf(schema["properties"]) {
		keeps(t, file, path+"."+name, s.(map[string]any))
	}
}

func mapOf(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}
