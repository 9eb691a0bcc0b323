"""Weight files of half the size."""


def store_kernels(path, dtype):
    """Stores those of a weights file in another dtype; they load as before."""
    import h5py

    whole = path.with_suffix(".whole")
    path.rename(whole)
    with h5py.File(whole) as old, h5py.File(path, "w") as new:

        def copy(name, item):
            if isinstance(item, h5py.Group):
                new.require_group(name).attrs.update(item.attrs)
                return
            values = item[()]
            if values.ndim > 1:
                values = values.astype(dtype)
            new.create_dataset(name, data=values).attrs.update(item.attrs)

        new.attrs.update(old.attrs)
        old.visititems(copy)
    whole.unlink()
