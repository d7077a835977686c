// SPDX-License-Identifier: Apache-2.0

package objects

import "testing"

// Whatever the text: no panic, every diagnostic has a code and a file, every object
// a name and a value, and a second reading gives the same.
func FuzzDecode(f *testing.F) {
	f.Add(webVS)
	f.Add("---\n" + testGroup("a", "x") + "---\n{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [1, null]}\n...\n%YAML 1.2\n---\na: &a [*a]\n")
	f.Add("# fairlead:source x:9999999999999999999\nkind: {<<: *b}\n? [a]\n: !!binary x\n")
	f.Add("apiVersion: v1\nkind: Service\nmetadata: {name: s, creationTimestamp: now}\nspec: {ports: [{port: 1e9, targetPort: 1.5}], clusterIP: 0x1F}\n")
	f.Fuzz(func(t *testing.T, text string) {
		b := decode(text)
		for _, d := range b.Diagnostics {
			if d.Code == "" || d.Source.File == "" || d.Message == "" {
				t.Errorf("diagnostic %+v", d)
			}
		}
		for _, o := range b.Objects {
			if o.Name == "" || o.Value == nil || o.Place.First == 0 {
				t.Errorf("object %+v", o)
			}
		}
		s := NewSet(noCalls)
		s.Replace(b)
		if changes, _ := s.Replace(decode(text)); len(changes) > 0 {
			t.Errorf("a second reading changes %v", changes)
		}
	})
}
