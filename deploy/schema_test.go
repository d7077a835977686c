// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"

	"fairlead.io/fairlead/agent/pipeline"
)

// The chart takes the Istio releases that an agent does: another would have it end at once.
func TestSchemaHasTheIstioReleases(t *testing.T) {
	b, err := os.ReadFile("chart/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Properties struct {
			Mesh struct {
				Properties struct {
					IstioVersion struct{ Enum []string }
				}
			}
		}
	}
	if err := json.Unmarshal(b, &schema); err != nil {
		t.Fatal(err)
	}
	want := []string{""}
	for minor := range 100 {
		v := fmt.Sprintf("1.%d", minor)
		if _, err := pipeline.Planes(pipeline.Options{IstioVersion: v}); err == nil {
			want = append(want, v)
		}
	}
	if got := schema.Properties.Mesh.Properties.IstioVersion.Enum; !slices.Equal(got, want) {
		t.Errorf("the schema has %v, agents take %v", got, want)
	}
}
