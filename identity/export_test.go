package identity

// CachedHandles returns the number of entries in the cache of handles.
func CachedHandles(d *Directory) int { return d.handles.Len() }
