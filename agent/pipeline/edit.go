// SPDX-License-Identifier: Apache-2.0

package pipeline

import (
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/translators/objects"
)

// Apply makes edits of single objects and recomputes what they change; what they cost is
// theirs, however many other objects there are. It is for a pipeline whose objects all
// came by Apply. It returns the changed rows of every table.
func (p *Pipeline) Apply(edits []objects.Edit) []incr.Change {
	p.host.Apply(edits)
	return p.store.Run()
}
